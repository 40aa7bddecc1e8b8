"""Messages for a full disk, and for files and folders without permission."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rate.files import draft_of

_HDF5_BYTES = 1 << 22  # above HDF5's cache of metadata, which it writes when a file is closed
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
# Folders of other users, read-only disks, and files in the place of a folder.
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}


@contextmanager
def explain_write_errors(kind: type[Exception], what: str, advice: str) -> Iterator[None]:
    """Raises an error for people when the disk is full or denies writing.

    Args:
        kind: The class of the error to raise. Other errors are not changed.
        what: What could not be written, for the message.
        advice: What to do, for the message.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError is one of HDF5's
        number = getattr(error, "errno", None)
        if number is None and (hidden := re.search(r"\berrno = (\d+)\b", str(error))):
            number = int(hidden[1])
        if number not in _DISK_FULL | _DENIED:
            raise
        reason = os.strerror(number)
        if number in _DENIED and isinstance(error, OSError) and error.filename:
            reason += f": {os.fsdecode(error.filename)}"
        raise kind(f"{what} cannot be written ({reason}). {advice}") from error


@contextmanager
def explain_read_errors(kind: type[Exception], path: Path) -> Iterator[None]:
    """Raises an error for people when permission to read is denied.

    Args:
        kind: The class of the error to raise. Other errors are not changed.
        path: What is read, for errors that do not name it.
    """
    try:
        yield
    except PermissionError as error:
        name = path if error.filename is None else os.fsdecode(error.filename)
        raise kind(f"{name}: this user may not read it ({os.strerror(errno.EACCES)})") from error


def require_room(file: Path, size: int) -> None:
    """Checks that a file can grow by some bytes, by reserving them for a moment.

    For the HDF5 library, which ends the process with SIGSEGV after a failed write: a full disk, or
    a quota or limit, is found before it. Another process may still fill the disk in between.

    Args:
        file: The file, which need not exist; its folder must.
        size: The bytes. HDF5's own tables are added.

    Raises:
        OSError: If there is no room.
    """
    if not hasattr(os, "posix_fallocate"):  # not Linux
        return
    start = file.stat().st_size if file.exists() else 0
    reserve = draft_of(file)
    try:
        with reserve.open("xb") as opened:
            os.posix_fallocate(opened.fileno(), start, size + _HDF5_BYTES)
    finally:
        reserve.unlink(missing_ok=True)


def may_write(folder: Path) -> bool:
    """Whether this user may create files in a folder, as far as the system can say beforehand."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def make_folder(path: Path, kind: type[Exception], what: str, advice: str) -> None:
    """Makes a writable folder, and its parents, unless it exists.

    Errors are raised now, before anything is to be written.

    Args:
        path: The folder.
        kind: See `explain_write_errors`.
        what: See `explain_write_errors`.
        advice: See `explain_write_errors`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not may_write(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise kind(f"{what} cannot be written ({reason}). {advice}") from error
