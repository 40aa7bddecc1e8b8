"""Which code of a user may run because a file names it.

A run and a saved model name what they are made of: their backbone, tokenizer and learning rule,
their environment. An import path there would run its module, and the file may be
from anywhere. So it is only followed where a person or a program has named the same path before, on
this computer, or has imported the module already. What was named is remembered for each user, in
`environments.json` of the folder of states (`XDG_STATE_HOME`, or `~/.local/state`).
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

_NAMED: set[str] = set()  # in this process, for where nothing can be written


def remember_path(name: str) -> None:
    """Note that a person has named something in a setting; names that are no paths need no note."""
    if ":" in name:
        remember_code([name])


def require_path(setting: str, name: str) -> None:
    """Refuse the import path in a file's setting that no person has named.

    Raises:
        ConfigError: If so; says what to type for it.
    """
    module = name.partition(":")[0]
    if ":" in name and module not in sys.modules and name not in named_code():
        raise ConfigError(
            f"{setting}={name} is code of somebody's own, which a file names and nobody has named "
            "on this computer so far. If you trust where the file comes from, name it yourself: "
            f"--{setting} {name}, or import {module} in Python before."
        )


def require_model_code(settings: Any) -> None:
    """Refuse a file's settings of a model whose backbone or tokenizer no person has named.

    Raises:
        ConfigError: If so; says what to type for it.
    """
    if isinstance(settings, Mapping):
        for name in ("backbone", "tokenizer"):
            require_path(f"model.{name}", str(settings.get(name, "")))


def remember_code(code: Iterable[str]) -> None:
    """Note that a person has named import paths and programs."""
    _NAMED.update(code)
    path, written = _file(), _written()
    if path is None or written >= _NAMED:
        return
    with suppress(OSError):  # it is asked for again, then
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, sorted(_NAMED | written))


def named_code() -> set[str]:
    """What was named, here or before."""
    return _NAMED | _written()


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
