"""Atomic, durable writes: a file or folder is there whole or not at all, also after a power cut.

All code that writes a result goes through this module. What is being written stands under a
temporary name (a draft) beside its final one. `publish` makes it durable (`fsync`) and renames it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields the draft of a file, to be written by whatever writes files; publishes it at the end.

    Whatever stood at `path` stays there until the new content is on the disk. If the block raises,
    the draft is removed and `path` is left as it was.

    Raises:
        OSError: If the draft cannot be made durable or renamed, for example on a full disk.
    """
    draft = draft_of(path)
    draft.unlink(missing_ok=True)  # a killed process of the same number, or somebody's link
    try:
        yield draft
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a text (as UTF-8) or bytes atomically.

    A symbolic link that somebody has put in the place of the draft is not followed.

    Raises:
        OSError: If the folder is missing or cannot be written, for example on a full disk.
    """
    with atomic_path(path) as draft, draft.open("xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, without NaN or infinity, which other readers refuse."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def publish(draft: Path, path: Path) -> None:
    """Make a finished file, or a folder with all that is in it, durable and give it its name.

    Raises:
        OSError: If that fails, for example on a full disk.
    """
    if draft.is_dir():
        for item in (item for item in draft.rglob("*") if item.is_file()):
            sync(item)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk (folders not on Windows)."""
    is_posix = os.name == "posix"
    if path.is_dir() and not is_posix:
        return
    descriptor = os.open(path, os.O_RDONLY if is_posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def draft_of(path: Path) -> Path:
    """The temporary name of a file that this process is writing."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def remove_drafts(folder: Path) -> None:
    """Remove the drafts of processes that were killed while they wrote files into `folder`.

    No other process may write there at the same time.
    """
    for draft in folder.glob(".*.tmp-*"):
        if draft.is_file() or draft.is_symlink():
            draft.unlink()
