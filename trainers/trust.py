"""Which code of a user may run because a file names it.

A run and a saved model name their environment: by an import path, and maybe another Python; a run
names its learning rule and its backbone. To make that is to run its code, whoever has written the
file. So this is done only where a person, or a program, has named the same before, on this
computer; that is remembered for each user, in
`environments.json` of the folder of states (`XDG_STATE_HOME`, or `~/.local/state`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.files import write_durably
from trainers.own_environment import PYTHON

_NAMED: set[str] = set()  # in this process, for where nothing can be written


def remember(name: str, options: dict[str, Any]) -> None:
    """Note that a person has named an environment.

    Args:
        name: The environment's name.
        options: Its settings.
    """
    _remember(_code(name, options))


def remember_path(name: str) -> None:
    """Note that a person has named something in a setting; names that are no paths need no note."""
    if ":" in name:
        _remember([name])


def require_path(setting: str, name: str) -> None:
    """Refuse the import path in a file's setting that no person has named.

    Raises:
        ConfigError: If so; says what to type for it.
    """
    if ":" in name and name not in _NAMED | _written():
        raise ConfigError(
            f"{setting}={name} is code of somebody's own, which a file names and nobody has named "
            "on this computer so far. If you trust where the file comes from, name it yourself: "
            f"--{setting} {name}"
        )


def _remember(code: Iterable[str]) -> None:
    _NAMED.update(code)
    path, written = _file(), _written()
    if path is None or written >= _NAMED:
        return
    with suppress(OSError):  # it is asked for again, then
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps(sorted(_NAMED | written), indent=1).encode())


def require(name: str, options: dict[str, Any]) -> None:
    """Refuse code that a file names, and no person has.

    Raises:
        ConfigError: If so; says what to type for it.
    """
    known = _NAMED | _written()
    missing = {code: way for code, way in _code(name, options).items() if code not in known}
    if missing:
        raise ConfigError(
            f"The environment {name} is code of somebody's own ({', '.join(missing)}), which a "
            "file names and nobody has named on this computer so far. If you trust where the file "
            f"comes from, name it yourself: {' '.join(missing.values())}"
        )


def _code(name: str, options: dict[str, Any]) -> dict[str, str]:
    """What code an environment is made by, where that is not installed under a name of its own.

    What is to be typed for each is beside it.
    """
    found = {name: f"--env {name}"} if ":" in name else {}
    python = options.get(PYTHON)
    if python is not None:
        program = os.path.abspath(str(python))  # noqa: PTH100 (a link stays one)
        found[program] = f"--env.{PYTHON} {program}"
    return found


def _written() -> set[str]:
    """What has been named before."""
    path = _file()
    try:
        return set() if path is None else set(map(str, json.loads(path.read_bytes())))
    except (OSError, ValueError, TypeError):
        return set()


def _file() -> Path | None:
    try:
        states = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:  # there is no home
        return None
    return Path(states) / "rate-trainer" / "environments.json"
