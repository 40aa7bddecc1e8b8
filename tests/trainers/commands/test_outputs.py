"""Commands refuse to overwrite unrelated files, before any work begins."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rate.errors import ConfigError
from scripts import benchmark, benchmark_popgym
from trainers.commands import doctor, evaluate, inspect, plot, report, scoring, study, video
from trainers.commands.outputs import check_picture, check_place
from trainers.commands.probe import Finding
from trainers.commands.scores import add_scores, check_scores, read_scores

Trained = Callable[[str], Path]
ROW = {"environment": "tmaze", "model": "rate", "seed": 1, "length": 9, "which": "last"}
ROW |= {"success": 0.5, "episodes": 4, "sem": 0.25}
STUDY = "environment: tmaze\nseeds: [1]\nruns: {rate: --model_mode rate}\n"


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("work was begun")


Command = tuple[Callable[[Sequence[str]], None], list[str]]


@pytest.fixture
def commands(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], dict[str, Command]]:
    """Returns every command with an output option, with this output and unusable inputs."""
    for where in (
        (scoring, "evaluate"),
        (video, "record_episode"),
        (inspect, "look"),
        (study, "run_study"),
        (benchmark, "measure_machine"),
        (benchmark_popgym, "run_study"),
        (doctor, "examine"),
        (plot, "plot_scores"),
    ):
        monkeypatch.setattr(*where, forbidden)
    run, table, plan = str(trained("rate")), tmp_path / "in.csv", tmp_path / "plan.yaml"
    add_scores(table, [ROW])
    plan.write_text(STUDY, encoding="utf-8")

    def of(output: Path) -> dict[str, Command]:
        out, folder = str(output), str(output.parent)
        return {
            "evaluate": (evaluate.main, [run, "--results", out]),
            "study": (study.main, [str(plan), f"--output={tmp_path}", "--results", out]),
            "popgym": (benchmark_popgym.main, ["--results", out]),
            "benchmark": (benchmark.main, ["--output", folder, "--results", out]),
            "plot": (plot.main, [str(table), "-o", out]),
            "plot of runs": (plot.main, [run, "-o", out]),
            "video": (video.main, [run, "-o", out]),
            "inspect": (inspect.main, [run, "-o", out]),
            "report": (report.main, [run, "-o", out]),
            "doctor": (doctor.main, ["tmaze", "--json", out]),
        }

    return of


CONTENTS = {
    "text.md": b"# A README\n\nof three lines\n",
    "table.csv": b"name,colour\nsky,blue\n",
    "half.csv": b"model,seed,length,success,which,note\nrate,1,9,0.5,last,my own remark\n",
    "bytes.csv": b"\xff\xfe\x00",
    "document.json": b'{"my": "own"}',
    "list.json": b"[1, 2]",
    "broken.json": b'{"command": "x", "machine": {}, "rows": [',
    "picture.png": b"GIF89a, but no PNG",
    "film.gif": b"\x89PNG, but no GIF",
    "film.mp4": b"no mp4 at all",
    "page.html": b"<p>mine</p>",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_an_unrelated_file_is_not_overwritten(
    name: str, commands: Any, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir()
    path.write_bytes(CONTENTS[name])
    for main, arguments in commands(path).values():
        message = error_of(main, arguments)
        assert str(path) in message
        assert path.read_bytes() == CONTENTS[name]
        assert [item.name for item in path.parent.iterdir()] == [name]


def test_an_impossible_output_path_is_refused(
    commands: Any, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    suffixes = {"video": ".gif", "report": ".html"}
    for path in (
        tmp_path / "file" / "out.png",
        tmp_path / "file" / "deep" / "out.gif",
        tmp_path / "folder.png",
        tmp_path / "pipe.png",
        tmp_path / f"{'long' * 70}.png",
        tmp_path / f"{'n' * 249}.csv",
    ):
        for name, (main, arguments) in commands(path).items():
            message = error_of(main, arguments)
            assert (
                "cannot be written" in message
                or f"is to be a {suffixes.get(name, '.png')}" in message
                or (name == "study" and "name the table as a .csv" in message)
            )


def test_earlier_figures_and_videos_are_replaced(tmp_path: Path) -> None:
    for name, content in (
        ("a.png", b"\x89PNG\r\n\x1a\n..."),
        ("b.gif", b"GIF89a..."),
        ("c.mp4", b"\x00\x00\x00\x20ftypisom..."),
        ("empty.png", b""),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        check_picture(path, path.suffix)
        assert path.read_bytes() == content
    with pytest.raises(ConfigError, match=r"is to be a \.png file"):
        check_picture(tmp_path / "a.pdf", ".png")


def test_a_table_with_the_name_of_the_figure_is_refused(
    commands: Any, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    main, arguments = commands(tmp_path / "new.png")["study"]
    assert "name the table as a .csv file" in error_of(main, arguments)
    (tmp_path / "other.png").write_bytes(b"no figure")
    main, arguments = commands(tmp_path / "other.csv")["study"]
    assert f"{tmp_path / 'other.png'} exists and is no .png file" in error_of(main, arguments)


def test_a_read_only_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    path.touch(0o444)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root ignores permissions
    with pytest.raises(ConfigError, match="read-only"):
        check_place(path)


def test_rows_are_added_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.touch()  # an empty file
    dt, other = {**ROW, "model": "dt"}, {**ROW, "environment": "retrieval", "success": 1.0}
    add_scores(path, [ROW, {**ROW, "length": 90}, other])
    first = path.read_text(encoding="utf-8").splitlines()
    add_scores(path, [{**dt, "seed": 0, "cue": 0.5}])
    add_scores(path, [{**ROW, "success": None, "invalid": 4}, {**dt, "seed": 0, "success": 0.75}])
    rows = read_scores(path)
    assert [(r["environment"], r["model"], r["seed"], r["length"], r["success"]) for r in rows] == [
        ("tmaze", "rate", 1, 90, 0.5),
        ("retrieval", "rate", 1, 9, 1.0),
        ("tmaze", "rate", 1, 9, None),
        ("tmaze", "dt", 0, 9, 0.75),
    ]
    assert (rows[2]["invalid"], rows[3].get("cue")) == (4, None)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == [first[0], *first[2:4]]  # other rows stay unchanged
    # Scores of other episodes are other rows, unless the row does not name its episodes.
    here, there = ({**ROW, "model": "dt", "seed": 0, "first_seed": n} for n in (7, 8))
    add_scores(path, [here, there])
    assert [row["first_seed"] for row in read_scores(path)] == [None, None, None, 7, 8]
    add_scores(path, [{**there, "success": 1.0}])
    assert [row["success"] for row in read_scores(path)][-2:] == [0.5, 1.0]
    rows = read_scores(path)
    add_scores(path, [{**row, "success": 0.25} for row in rows])
    assert {row["success"] for row in read_scores(path)} == {0.25}
    assert len(read_scores(path)) == 5


def test_concurrent_commands_add_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: add_scores(path, [{**ROW, "seed": seed}]), range(24)))
    assert sorted(row["seed"] for row in read_scores(path)) == list(range(24))
    assert [item.name for item in tmp_path.iterdir()] == ["scores.csv"]


def test_models_with_equal_names_are_all_kept(trained: Trained, tmp_path: Path) -> None:
    models = [tmp_path / place / "model" for place in "ab"]
    for model in models:
        shutil.copytree(trained("rate") / "checkpoints" / "last", model)
    table = tmp_path / "scores.csv"
    evaluate.main([*map(str, models), "--lengths", "9", "11", "--results", str(table)])
    assert [row["length"] for row in read_scores(table)] == [9, 11, 9, 11]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "needs rows under model, seed"),
        ("model,seed,length,success,which,note\nrate,1,9,1,last,fine\n", "note is 'fine', not a"),
        ("model,seed,length,success,which\nrate,1,9,1,last,more\n", "line 2 has more cells"),
        ("model,seed,length,success,which,sem,sem\nrate,1,9,1,last,1,2\n", "two columns have one"),
        ("model,seed,length,success,which\nrate,1.5,9,1,last\n", "seed is '1.5'"),
    ],
)
def test_a_table_with_foreign_columns_is_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="utf-8")
    for use in (check_scores, lambda path: add_scores(path, [ROW])):
        with pytest.raises(ConfigError, match=rf"{path.name} is no table.* left as it is\."):
            use(path)
        assert path.read_text(encoding="utf-8") == content
    with pytest.raises(ConfigError, match=message):
        read_scores(path)


def test_a_cell_that_is_not_finite_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    header = "model,seed,length,success,which,return"
    path.write_text(f"{header}\nrate,1,9,nan,last,inf\nrate,2,9,0.5,last,-1e400\n")
    assert [(row["success"], row["return"]) for row in read_scores(path)] == [
        (None, None),
        (0.5, None),
    ]


def test_scores_are_shown_and_kept_if_the_next_model_fails(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, play = tmp_path / "new" / "scores.csv", scoring.evaluate

    def once(*arguments: Any, lengths: list[int], **settings: Any) -> Any:
        if lengths == [40]:
            raise KeyboardInterrupt
        return play(*arguments, lengths=lengths, **settings)

    monkeypatch.setattr(scoring, "evaluate", once)
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(trained("rate")), "--results", str(table)])
    assert ended.value.code == 130
    assert [row["length"] for row in read_scores(table)] == [9]
    assert "Success rate" in capsys.readouterr().out


def test_scores_are_shown_if_they_cannot_be_written(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainers.commands.scores.write_atomic", full)
    with pytest.raises(SystemExit):
        evaluate.main([str(trained("rate")), "--results", str(tmp_path / "scores.csv")])
    captured = capsys.readouterr()
    assert "Success rate" in captured.out
    assert "scores.csv cannot be written: No space left" in captured.err


@pytest.mark.parametrize("seed", [-1, -(1 << 70), (1 << 63) - 3, 1 << 64, 10**30])
def test_seeds_out_of_range_are_refused(
    seed: int, commands: Any, trained: Trained, error_of: Callable[..., str]
) -> None:
    command = [str(trained("rate")), f"--seed={seed}"]
    assert f"--seed is {seed}, and 4 episodes" in error_of(evaluate.main, command)
    if not 0 <= seed < 1 << 63:
        film = ["-o", "/tmp/never.gif"]
        assert f"--seed is {seed}; it must be" in error_of(video.main, [*command, *film])


def test_the_largest_seed_is_accepted(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(trained("rate")), f"--seed={(1 << 63) - 4}"])
    assert "Success rate" in capsys.readouterr().out


def test_the_committed_tables_are_readable() -> None:
    folder = Path(__file__).parents[3] / "data" / "results"
    for path in folder.glob("*.csv"):
        if path.name not in ("soak.csv", "speed.csv"):
            check_scores(path)
        else:
            with pytest.raises(ConfigError, match="is no table of scores"):
                check_scores(path)


def test_earlier_findings_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda name, _: Finding(name, works=True))
    path = tmp_path / "found.json"
    for names in (["tmaze"], ["tmaze", "trainer"]):
        with pytest.raises(SystemExit):
            doctor.main([*names, "--json", str(path)])
        found = json.loads(path.read_text(encoding="utf-8"))
        assert [finding["name"] for finding in found] == names
