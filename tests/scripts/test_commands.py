"""Every script has help."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from trainers.registry import ENVIRONMENTS

SCRIPTS = Path(__file__).parents[2] / "scripts"
COMMANDS = [
    path
    for path in sorted(SCRIPTS.glob("*.py"))
    if 'if __name__ == "__main__"' in path.read_text("utf-8")
]


def call(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[object, str, str]:
    """Runs a script in this process; returns its exit code and output."""
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_a_command_has_help(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(path, monkeypatch, capsys, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: ")
    assert len(out) > 100


def test_train_takes_the_environment_as_its_first_argument(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = SCRIPTS / "train.py"
    assert all(name in call(path, monkeypatch, capsys, "--help")[1] for name in ENVIRONMENTS)
    code, _, error = call(path, monkeypatch, capsys)
    assert code == 2
    assert "environment" in error
    code, _, error = call(path, monkeypatch, capsys, "tmase", "--help")
    assert (code, "did you mean 'tmaze'?" in error) == (2, True)
    code, out, _ = call(path, monkeypatch, capsys, "retrieval", "--model_mode", "DT", "--help")
    assert (code, "Presets:" in out, "those of 'dt'" in out) == (0, True, True)
