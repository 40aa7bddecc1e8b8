"""`rate convert` makes a model that acts of a Decision Transformer of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rate.weights import load_model
from tests.rate.test_huggingface import CONFIG, random_weights, write
from trainers.commands import convert, evaluate

HOPPER: dict[str, Any] = {**CONFIG, "state_dim": 11, "act_dim": 3}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    statistics = {"state_mean": [0.5] * 11, "state_std": [2.0] * 11}
    (tmp_path / "states.json").write_text(json.dumps(statistics), encoding="utf-8")
    return write(tmp_path / "hf", HOPPER, random_weights(HOPPER))


def words(checkpoint: Path, *more: str) -> list[str]:
    statistics = f"--statistics={checkpoint.parent / 'states.json'}"
    return [str(checkpoint), str(checkpoint.parent / "dt"), statistics, *more]


def test_a_checkpoint_acts_in_mujoco(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mujoco")
    convert.main(
        words(checkpoint, "--target-return=3600", "--environment=mujoco", "--env.task=hopper")
    )
    made = checkpoint.parent / "dt"
    saved = load_model(made)
    assert (saved.spec.name, saved.spec.target_return) == ("mujoco", 3600.0)
    assert saved.model.config.return_scale == 1000.0
    assert saved.model.tokenizer.observation.std.tolist() == [2.0] * 11
    evaluate.main([str(made), "--episodes=1"])
    assert "dt" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        convert.main(words(checkpoint, "--target-return=3600"))
    assert f"{made} exists; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "needs --target-return"),
        (("--target-return=1", "--environment=tmaze"), "observations of the checkpoint are Box"),
        (("--target-return=1", "--statistics=hf/config.json"), "is no JSON file with the lists"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    more: tuple[str, ...],
    message: str,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    with pytest.raises(SystemExit, match="2"):
        convert.main(words(checkpoint, *more))
    assert message in capsys.readouterr().err
    assert not (checkpoint.parent / "dt").exists()
