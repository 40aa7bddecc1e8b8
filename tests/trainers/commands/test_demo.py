"""`rate demo` lets the models of the package act, beyond the lengths that they were trained on."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from PIL import Image

from rate.hub import PRETRAINED, pretrained_names
from rate.policy import Policy
from rate.weights import WEIGHTS, load_model
from trainers.commands.demo import DEMOS, main

NAMES = ["minigrid-rate", "tmaze-lstm", "tmaze-rate"]


def test_every_model_is_small_whole_and_has_a_card() -> None:
    assert pretrained_names() == NAMES
    for name in NAMES:
        folder = PRETRAINED / name
        assert (folder / WEIGHTS).stat().st_size < 1_000_000
        assert load_model(folder).spec.name in DEMOS  # and the digests are right
        _, metadata, card = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        assert yaml.safe_load(metadata)["license"] == "mit"
        assert "## Scores" in card
        policy = Policy.from_pretrained(name, 2)
        assert len(policy.timesteps) == 2


@pytest.mark.parametrize("name", ["minigrid-rate", "tmaze-rate"])  # tmaze-lstm: test_wheel.py
def test_a_model_is_scored_and_filmed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(name.partition("-")[0]) is None and name.startswith("minigrid"):
        pytest.skip("the extra minigrid is not installed")
    main([name, "-o", str(tmp_path / "demo.gif"), "--episodes=2"])
    printed = capsys.readouterr().out
    # Success within and beyond the trained length.
    assert re.search(rf"{name} +│ last +│ 1\.00 │ 1\.00 │", printed), printed
    with Image.open(tmp_path / "demo.gif") as film:
        assert getattr(film, "n_frames", 1) > 10


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tmaze-rat"])
    assert "There is no model tmaze-rat. Did you mean tmaze-rate?" in capsys.readouterr().err
