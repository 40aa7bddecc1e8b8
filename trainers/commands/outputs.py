"""Checks of output files before a command starts, and their errors.

Files of another kind are not replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.files import draft_of, load_json

# Offset and bytes of the signature of a file, by suffix.
_SIGNATURES = {
    ".png": (0, b"\x89PNG\r\n\x1a\n"),
    ".gif": (0, b"GIF8"),
    ".mp4": (4, b"ftyp"),
    ".html": (0, b"<!DOCTYPE html>"),
}


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Context of writing a file; creates its folder, and names the file in errors.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error


def check_place(path: Path) -> None:
    """Check that a file can be written, with a temporary file in its folder.

    Raises:
        ConfigError: If it cannot.
    """
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise ConfigError(f"{path} cannot be written: it is {what}.")
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigError(f"{path} cannot be written: it is read-only.")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        draft = draft_of(folder / path.name)
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def check_picture(path: Path, *suffixes: str) -> None:
    """Check that an image, a video or a page can be written and replaces no file of another kind.

    Args:
        path: The file.
        suffixes: The allowed suffixes of its name.

    Raises:
        ConfigError: If a check fails.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        one = " or ".join(suffixes)
        raise ConfigError(f"{path} is to be a {one} file; name it so.")
    check_place(path)
    start, signature = _SIGNATURES[suffix]
    if path.exists():
        with path.open("rb") as file:
            head = file.read(64)
        if head and head[start : start + len(signature)] != signature:
            raise refusal(path, f"{suffix} file")


def read_own_json(path: Path, kind: str, keys: set[str]) -> Any:
    """Returns the content of a command's JSON output file; None if it is missing or empty.

    Args:
        path: The file.
        kind: The kind of file, for the message.
        keys: The required keys of the object in it, or of each object of the list in it.

    Raises:
        ConfigError: If the file has other content, or cannot be written.
    """
    check_place(path)
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        content = load_json(path)
    except (OSError, ValueError, RecursionError):
        raise refusal(path, kind) from None
    for item in content if isinstance(content, list) else [content]:
        if not isinstance(item, dict) or not keys <= item.keys():
            raise refusal(path, kind)
    return content


def refusal(path: Path, kind: str) -> ConfigError:
    """Returns the error for an existing file that is not of the kind to be written."""
    return ConfigError(
        f"{path} exists and is no {kind}; it is left as it is. Give the output another name."
    )
