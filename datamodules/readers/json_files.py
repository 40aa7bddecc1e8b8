"""Metadata files of data sets: JSON objects, and the names of files that they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError
from rate.files import load_json


def read_json(file: Path, what: str) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Args:
        file: The file.
        what: What the object describes, for messages.

    Raises:
        DatasetError: If the file is missing or damaged, or holds anything else.
    """
    try:
        found = load_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: missing or damaged ({error}); get it again") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{file}: not the description of {what}")
    return found


def plain_name(name: Any, file: Path) -> str:
    """Returns a name that `file` gives to a file or folder beside it.

    Raises:
        DatasetError: If it is a path that leads elsewhere.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise DatasetError(f"{file} names {name!r}, which is not in its folder; it is not read")
    return name
