"""Small files that appear whole or not at all."""

from __future__ import annotations

import json
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


def write_json(path: Path, value: Any) -> None:
    """Write JSON without NaN or infinity, which other readers refuse."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML with the keys in their own order."""
    write_atomic(path, yaml.safe_dump(value, sort_keys=False))
