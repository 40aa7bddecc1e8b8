"""What a disk says when it takes no more, or takes nothing from this user."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
# Folders of other users, read-only disks, and files that stand where a folder was to be.
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}


@contextmanager
def explain_write_errors(kind: type[Exception], what: str, advice: str) -> Iterator[None]:
    """Tell people of a disk that takes no more, or nothing from them; other errors stay.

    Args:
        kind: The error to raise, of the words that follow.
        what: Cannot be written.
        advice: What to do then.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError is one of HDF5's
        number = getattr(error, "errno", None)
        if number is None and (hidden := re.search(r"\berrno = (\d+)\b", str(error))):
            number = int(hidden[1])
        if number not in _FULL | _CLOSED:
            raise
        reason = os.strerror(number)
        if number in _CLOSED and isinstance(error, OSError) and error.filename:
            reason += f": {os.fsdecode(error.filename)}"
        raise kind(f"{what} cannot be written ({reason}). {advice}") from error


@contextmanager
def explain_read_errors(kind: type[Exception], path: Path) -> Iterator[None]:
    """Tell people of what another user keeps to themselves; other errors stay.

    Args:
        kind: The error to raise.
        path: What is read, where an error does not tell.
    """
    try:
        yield
    except PermissionError as error:
        name = path if error.filename is None else os.fsdecode(error.filename)
        raise kind(f"{name}: this user may not read it ({os.strerror(errno.EACCES)})") from error


def may_write(folder: Path) -> bool:
    """Whether this user may make files in a folder, as far as that can be known without trying."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def make_folder(path: Path, kind: type[Exception], what: str, advice: str) -> None:
    """Make a folder that can be written, and those above it, unless it is there.

    Any reason why not is told, before there is anything to write.

    Args:
        path: The folder.
        kind: As for `explain_write_errors`, as are the others.
        what: Cannot be written.
        advice: What to do then.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not may_write(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise kind(f"{what} cannot be written ({reason}). {advice}") from error
