"""Models that are published act as in their run, and carry no more than they need."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rate.errors import ConfigError, WeightsError
from rate.hub import fetch_model
from rate.policy import Policy
from rate.weights import load_model, save_model
from trainers.api import Run
from trainers.commands.evaluate import find_candidates
from trainers.commands.model_card import published_model

Trained = Callable[[str], Path]
FILES = ["README.md", "model.json", "model.safetensors"]
NAME = "someone/tmaze.rate-1"


@pytest.fixture(scope="module")
def run(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with settings of its own for acting, and a name that is markup."""
    folder = tmp_path_factory.mktemp("their") / "run"
    shutil.copytree(trained("rate"), folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["evaluation"] |= {"return_to_go": "hold", "target_return": 2.0}
    config["logging"]["name"] = "<b> | [x](y)"
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return Run.open(folder)


def assert_acts_alike(first: Policy, second: Policy) -> None:
    rng, rewards = np.random.default_rng(0), None
    shape = first.model.observation_space.shape or ()
    for _ in range(2 * first.model.config.context_length + 1):
        seen = rng.normal(size=(2, *shape)).astype(np.float32)
        expected, found = first.step(seen, rewards), second.step(seen, rewards)
        assert (expected.predictions == found.predictions).all()
        assert (first.returns_to_go == second.returns_to_go).all()
        rewards = np.ones(2)


def test_a_published_model_acts_as_its_run(run: Run, tmp_path: Path) -> None:
    folder = Path(run.push_to_hub(NAME, hub=tmp_path))
    assert folder == tmp_path / NAME
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert_acts_alike(run.policy(2), Policy.from_pretrained(NAME, 2, hub=tmp_path))
    (candidate,) = find_candidates(folder)  # what `rate evaluate` and `rate video` play
    assert candidate.settings.return_to_go == "hold"
    assert candidate.saved.spec.target_return == 2.0
    run.push_to_hub(NAME, which="best", hub=tmp_path)  # replaces it
    assert_acts_alike(run.policy(2, which="best"), Policy.from_pretrained(folder, 2))


def test_a_card_says_what_the_run_says_and_is_no_markup(run: Run, tmp_path: Path) -> None:
    folder = Path(run.push_to_hub(NAME, hub=tmp_path, licence="cc-by-4.0"))
    _, metadata, card = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    known = yaml.safe_load(metadata)
    assert known["license"] == "cc-by-4.0"
    assert known["pipeline_tag"] == "reinforcement-learning"
    assert r"\<b\> \| \[x\]\(y\)" in card
    assert "<b>" not in card
    assert "40 episodes that the environment's expert plays" in card
    row = next(row for row in run.scores if row["which"] == "last")
    assert f"| {row['success']:.2f} ± {row['sem']:.2f} |" in card
    assert f'Policy.from_pretrained("{NAME}"' in card
    texts = card + metadata + (folder / "model.json").read_text(encoding="utf-8")
    assert str(run.config.data.root) not in texts
    assert str(run.folder) not in texts
    assert "none stated" in Path(run.push_to_hub("a/b", hub=tmp_path), "README.md").read_text()


def test_paths_of_this_computer_are_not_published(run: Run) -> None:
    saved = run.load()
    spec = replace(saved.spec, options={"python": "/home/me/python", "size": 3})
    published = published_model(replace(saved, spec=spec), run.config.evaluation)
    assert published.spec.options == {"size": 3}


def test_the_hub_is_given_and_gives_these_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    made: dict[str, Any] = {}

    def create(_: Any, name: str, *, private: bool, exist_ok: bool) -> str:
        made.update(name=name, private=private, exist_ok=exist_ok)
        return f"https://hub/{name}"

    def upload(_: Any, *, repo_id: str, folder_path: Path, allow_patterns: Any, **__: Any) -> None:
        assert sorted(path.name for path in folder_path.iterdir()) == sorted(allow_patterns)
        shutil.copytree(folder_path, tmp_path / repo_id)

    def download(name: str, *, revision: str | None, allow_patterns: Any, **_: Any) -> str:
        assert (revision, sorted(allow_patterns)) == ("v1", FILES[1:])
        return str(tmp_path / name)

    monkeypatch.setattr(hub.HfApi, "create_repo", create)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert run.push_to_hub(NAME) == f"https://hub/{NAME}"
    assert made == {"name": NAME, "private": True, "exist_ok": True}
    assert_acts_alike(run.policy(2), Policy.from_pretrained(NAME, 2, revision="v1"))


def test_what_cannot_be_reached_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    monkeypatch.setattr(hub.HfApi, "create_repo", offline)
    with pytest.raises(ConfigError, match=r"a/b could not be fetched .*: no route to host$"):
        fetch_model("a/b")
    with pytest.raises(ConfigError, match=r"a/b could not be written .* hub: no route to host"):
        run.push_to_hub("a/b")
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    for call in (lambda: fetch_model("a/b"), lambda: run.push_to_hub("a/b")):
        with pytest.raises(ConfigError, match=r"needs huggingface_hub\.errors, .*hub"):
            call()


@pytest.mark.parametrize("name", ["../x", "a/../b", "a", "a/b/c", "a/b\n", "/etc/x", "a/.b"])
def test_a_name_leads_nowhere_else(name: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no name of a model on a hub"):
        run.push_to_hub(name, hub=tmp_path / "hub")
    with pytest.raises(ConfigError, match="is no name of a model on a hub"):
        fetch_model(name, hub=tmp_path / "hub")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean tmaze-rate"):
        fetch_model("tmaze-rat")
    with pytest.raises(WeightsError, match="holds no model"):
        fetch_model(tmp_path)


@pytest.mark.parametrize("acting", [{"return_to_go": "rise"}, {"code": "x:y"}, "hold"])
def test_unknown_settings_of_acting_are_refused(acting: Any, run: Run, tmp_path: Path) -> None:
    saved = run.load()
    save_model(replace(saved, extra={"acting": acting}), tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["extra"] == {"acting": acting}
    with pytest.raises(WeightsError, match=r"acting in model\.json"):
        Policy.from_pretrained(tmp_path)
    assert load_model(tmp_path).model is not None
