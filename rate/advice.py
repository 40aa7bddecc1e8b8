"""Commands for messages to users, which depend on how this project is installed.

All messages that name a command or an extra get it from here: `python scripts/x.py` and
`make install` in the folder of a clone, `rate x` and `pip install` everywhere else.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

PROJECT = "rate-trainer"  # its name for pip
STAMP = "rate-trainer.json"  # written by `make install` into the environment that it makes
ROOT = Path(__file__).resolve().parents[1]
_SCRIPTS = {"inspect": "inspect_memory"}  # scripts that are not named as their command is


def in_clone() -> bool:
    """Whether the working folder is the clone that this code is run from."""
    try:
        return (ROOT / "scripts" / "bootstrap.py").is_file() and ROOT.samefile(Path.cwd())
    except OSError:  # the working folder is gone
        return False


def command(name: str, *words: str) -> str:
    """The shell command for a command of this project.

    Args:
        name: The command, as `rate NAME` has it.
        words: What follows it; an environment comes first for `train`.
    """
    if not in_clone():
        return shlex.join(["rate", name, *words])
    script = _SCRIPTS.get(name, name)
    if name == "train" and words and (ROOT / "scripts" / f"train_{words[0]}.py").is_file():
        script, words = f"train_{words[0]}", words[1:]
    return shlex.join(["python", f"scripts/{script}.py", *words])


def install(extra: str = "", python: str = "") -> str:
    """The shell command that installs an extra of this project, or the project itself.

    In an environment of `make install` it is `make install` again, unless that has installed the
    extra before: then its packages were removed, and pip restores them.

    Args:
        extra: The extra; empty for the project alone.
        python: A version of Python, like 3.12, for which to install it in an environment of its
            own; empty for the one that runs this.
    """
    if python:
        if in_clone():
            return f"make install EXTRAS={extra} PYTHON=python{python} VENV=.venv-{python}"
        return f'python{python} -m pip install "{PROJECT}[{extra}]"'
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    if not in_clone():
        return f'{pip} "{PROJECT}[{extra}]"' if extra else f"{pip} {PROJECT}"
    here, stamp = Path(sys.prefix), _stamp()
    if stamp is not None and extra not in stamp:
        venv = "" if here == ROOT / ".venv" else f" VENV={shlex.quote(str(here))}"
        return f"make install EXTRAS={extra}{venv}"
    project = f".[{extra}]" if extra else "."
    return f'{pip} -c requirements.lock -e "{project}"'


def _stamp() -> list[str] | None:
    """The extras that `make install` has put into this environment; None if it has not made it."""
    try:
        stamp = json.loads(Path(sys.prefix, STAMP).read_text(encoding="utf-8"))
        return ["", *stamp["extras"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
