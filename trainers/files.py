"""Small files that appear whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from rate.files import write_durably


def write_atomic(path: Path, content: str) -> None:
    """Write a text file under a temporary name, make it durable, and rename it.

    Raises:
        OSError: If the folder is missing or cannot be written.
    """
    write_durably(path, content.encode())


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time be in here, of those that name the same folder.

    Nothing is left in the folder. Where it cannot be locked, for its file system has no locks or
    this user may not read it, nobody is kept out.
    """
    descriptor = None
    try:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON without NaN or infinity, which other readers refuse."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML with the keys in their own order."""
    write_atomic(path, yaml.safe_dump(value, sort_keys=False))
