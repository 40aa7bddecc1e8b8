"""make refuses unknown variables and targets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
ROOT = Path(__file__).resolve().parent.parent


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Without the variables of a make that runs the tests.
    variables = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--dry-run", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("EXTRA=vizdoom", "There is no variable EXTRA. Did you mean EXTRAS?"),
        ("extras=vizdoom", "There is no variable extras. Did you mean EXTRAS?"),
        ("ARG=--help", "There is no variable ARG. Did you mean ARGS?"),
        ("PYTHN=python3", "There is no variable PYTHN. Did you mean PYTHON?"),
        ("QQQQ=", "There is no variable QQQQ. There are: ARGS EXTRAS PYTHON VENV WORKERS"),
    ],
)
@pytest.mark.parametrize("command", ["install", "test"])
def test_an_unknown_variable_is_refused(command: str, given: str, message: str) -> None:
    done = make(command, given)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_variables_reach_the_command() -> None:
    done = make("install", "EXTRAS=vizdoom", "VENV=elsewhere", "ARGS=--a b", "WORKERS=2")
    assert done.returncode == 0, done.stderr
    assert '--venv "elsewhere" --extras "vizdoom"' in done.stdout


def test_an_unknown_target_is_refused() -> None:
    assert "there is no command instal" in make("instal").stdout
