"""Which code of a user may be imported because a file names it.

The files of a run and of a saved model name its backbone, tokenizer, objective and environment. To
import a path from a file is to run its module, and the file may come from anywhere. A path is
therefore imported only where the user has named it before on this computer, or the module is
imported already. Named paths are stored per user in `environments.json` of the state folder
(`XDG_STATE_HOME`, or `~/.local/state`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.files import write_json

_NAMED: set[str] = set()  # in this process, where the file cannot be written


def remember_path(name: str) -> None:
    """Stores an import path that a user has named in a setting; other names are ignored."""
    if ":" in name:
        remember_code([name])


def require_path(setting: str, name: str) -> None:
    """Checks that a user has named the import path in a setting of a file.

    Raises:
        ConfigError: If not; says what to type for it.
    """
    module = name.partition(":")[0]
    if ":" in name and module not in sys.modules and name not in named_code():
        raise ConfigError(
            f"{setting}={name} is code that a file names, and that you have not named before "
            "on this computer. If you trust where the file comes from, name it yourself: "
            f"--{setting} {name}, or import {module} in Python before."
        )


def require_model_code(settings: Any) -> None:
    """Checks that a user has named the backbone and the tokenizer in the settings of a file.

    Raises:
        ConfigError: If not; says what to type for it.
    """
    if isinstance(settings, Mapping):
        for name in ("backbone", "tokenizer"):
            require_path(f"model.{name}", str(settings.get(name, "")))


def remember_code(code: Iterable[str]) -> None:
    """Stores import paths and programs that a user has named."""
    _NAMED.update(code)
    path, written = _file(), _written()
    if path is None or written >= _NAMED:
        return
    with suppress(OSError):  # the user has to name it again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, sorted(_NAMED | written))


def named_code() -> set[str]:
    """All paths that were named, in this process or before."""
    return _NAMED | _written()


def _written() -> set[str]:
    """The stored paths."""
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
