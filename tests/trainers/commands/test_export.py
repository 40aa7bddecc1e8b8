"""`rate export` writes what a run or a named model does, with the settings of its evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainers.commands.export import find, main, policy_of


def description_of(path: Path) -> dict[str, Any]:
    held = {"rate.json": ""}
    torch.export.load(path, extra_files=held)
    found: dict[str, Any] = json.loads(held["rate.json"])
    return found


def test_a_named_model_becomes_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["tmaze-lstm", "-o", "made/policy.pt2", "--batch=0"])
    assert capsys.readouterr().out == "made/policy.pt2 is made.\n"
    about = description_of(tmp_path / "made" / "policy.pt2")
    assert about["environment"]["name"] == "tmaze"
    assert about["inputs"][0] == {
        "name": "observation",
        "dtype": "float32",
        "shape": ["batch", 4],
    }


def test_a_run_acts_with_the_settings_of_its_evaluation(trained: Callable[[str], Path]) -> None:
    policy, notes = policy_of(find(str(trained("dt")), "best"))
    assert policy.spec is not None
    assert (policy.spec.name, policy.target_return) == ("tmaze", 1.0)
    assert notes == [
        "the run was scored with evaluation.recompute_window=false; the file computes the window "
        "again at every step, so that its scores may differ."
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tmaze-lstm", "-o", "policy.pt"], "the file must end in .onnx or .pt2"),
        (["tmaze-lst"], "Did you mean tmaze-lstm?"),
        (["tmaze-lstm", "--batch=-1"], "'-1' is no whole number of at least 0"),
        (["tmaze-lstm", "--which=best"], "has no weights 'best'; it has last"),
    ],
)
def test_what_cannot_be_written_is_refused(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
