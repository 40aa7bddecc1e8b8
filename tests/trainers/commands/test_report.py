"""`rate report` writes one page that is complete in itself; text from files is no code in it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from trainers.commands.report import main

Trained = Callable[[str], Path]
MARKUP = '<script>alert("1") <b> $x^$ & more'


class Seen(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.tags[-1][0] in ("td", "th"):
            self.cells[-1] += data.strip()

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def report(path: Path, runs: Sequence[Path], *options: str) -> Seen:
    main([*map(str, runs), "-o", str(path), *options])
    return Seen(path.read_text(encoding="utf-8"))


def copied(run: Path, folder: Path, seed: int | None = None, **logging: Any) -> Path:
    """Returns a copy of a run with another name or seed."""
    shutil.copytree(run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["logging"].update(logging)
    config["training"]["seed"] = seed or config["training"]["seed"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def test_a_page_has_scores_curves_memory_and_episodes(trained: Trained, tmp_path: Path) -> None:
    runs = [trained("rate"), trained("lstm")]
    page = report(tmp_path / "r.html", runs, "--episodes=3", "--steps=2")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a", "form"}
    policies = [meta.get("content") for meta in page.named("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    kinds = []
    for image in page.named("img"):
        head, data = str(image["src"]).split(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            kinds.append((head, picture.format, getattr(picture, "n_frames", 1) > 1))
    still = ("data:image/png;base64", "PNG", False)
    # Scores, curves, memory, the layers of the transformer, and an episode of each.
    assert kinds == [*[still] * 4, *[("data:image/gif;base64", "GIF", True)] * 2]
    rows = json.loads((runs[0] / "evaluation.json").read_text(encoding="utf-8"))["rows"]
    at = {row["length"]: row for row in rows if row["which"] == "last"}
    scores = [f"{at[n]['success']:.2f} ± {at[n]['sem']:.2f}" for n in (9, 40)]
    start = page.cells.index("last")
    assert page.cells[start - 1 : start + 6] == ["rate", "last", "–", "1", "4", *scores]
    assert "evaluations: 1, of 4 episodes" in page.cells  # what chose the best weights
    assert "drift" in page.cells
    assert "features" in page.cells  # of the probes
    assert "model.backbone" in page.cells  # a setting that differs
    assert "model.valve" not in page.cells  # an LSTM has none


def test_seeds_of_a_model_have_one_row_with_an_interval(trained: Trained, tmp_path: Path) -> None:
    runs = [trained("rate"), copied(trained("rate"), tmp_path / "two", seed=2)]
    cells = report(tmp_path / "r.html", runs, "--files-only").cells
    start = cells.index("last")
    assert cells[start + 2] == "2"
    assert cells[start + 4].count("[") == 1
    again = copied(trained("rate"), tmp_path / "again")  # the same name and seed
    cells = report(tmp_path / "r.html", [runs[0], again], "--files-only").cells
    assert cells[cells.index("last") - 1] == "rate"
    assert cells.count("again") == 4  # the run, and the model in the tables of runs and of scores


def test_text_from_files_is_no_markup(trained: Trained, tmp_path: Path) -> None:
    run = copied(trained("rate"), tmp_path / "a<i>b$", name=MARKUP)
    page = report(tmp_path / "r.html", [run], "--files-only")
    assert not {tag for tag, _ in page.tags} & {"script", "i", "b"}
    assert "a<i>b$" in page.cells
    assert any("<script>" in cell for cell in page.cells)


def test_a_model_that_cannot_act_is_named_with_the_reason(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report(tmp_path / "r.html", [trained("rate")], "--length=20", "--steps=1")
    for text in (page.text, capsys.readouterr().out):
        assert "The memory of tmaze-rate-1 is not shown: --length 20 is less than 8" in text
    assert len(page.named("img")) == 3


@pytest.mark.parametrize("content", ["[", "[1]", '{"rows": [{"which": "last"}]}', '{"rows": [1]}'])
def test_a_damaged_file_is_named(
    content: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained("rate"), tmp_path / "run")
    (run / "evaluation.json").write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        report(tmp_path / "r.html", [run], "--files-only")
    assert f"{run / 'evaluation.json'} is damaged" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_run_that_has_not_finished_has_its_curves(trained: Trained, tmp_path: Path) -> None:
    run = copied(trained("rate"), tmp_path / "run")
    (run / "evaluation.json").unlink()
    page = report(tmp_path / "r.html", [run], "--files-only")
    assert "not finished" in page.cells
    assert "No run has been scored" in page.text
    assert len(page.named("img")) == 1
