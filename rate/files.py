"""Files that appear whole or not at all, and are there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, make it durable, and rename it.

    Whatever stood at `path` stays there until the new content is on the disk. A symbolic link that
    somebody has put in the place of the temporary file is not followed.

    Raises:
        OSError: If the folder is missing or cannot be written, for example on a full disk.
    """
    draft = draft_of(path)
    draft.unlink(missing_ok=True)  # of a process of the same number that was killed
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    fsync_directory(path.parent)


def draft_of(path: Path) -> Path:
    """The temporary name of a file that this process is writing."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def remove_drafts(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote into `folder`.

    No other process may write there at the same time.
    """
    for draft in folder.glob(".*.tmp-*"):
        if draft.is_file() or draft.is_symlink():
            draft.unlink()


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
