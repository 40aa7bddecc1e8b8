"""Small files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from datamodules.npy import fsync_directory


def write_atomic(path: Path, content: str) -> None:
    """Write a text file under a temporary name, make it durable, and rename it.

    Raises:
        OSError: If the folder is missing or cannot be written.
    """
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    fsync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON without NaN or infinity, which other readers refuse."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML with the keys in their own order."""
    write_atomic(path, yaml.safe_dump(value, sort_keys=False))
