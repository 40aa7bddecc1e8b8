"""File locks between processes, of one user or of several users who share a folder.

A lock is a system lock on an open file (`flock`; a byte range on Windows). The system releases it
when the process ends, including by a crash or a signal.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE_S = 2.0  # of waiting before the warning
_POLL_S = 0.05
_MODE = 0o666  # every user who may write in the folder may lock
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock while the block runs.

    If another process holds the lock, this waits and warns after two seconds. The lock is an empty
    file, which is not removed: a process could lock the removed file while another one locks a new
    file of that name. A read-only lock file of another user can be locked too. On a file system
    without locks the block runs unlocked, with a warning.

    Args:
        path: The lock file, in a writable folder.
        what: What the holder does, for the warning: "another process is {what}".

    Raises:
        OSError: If the file does not exist and cannot be created.
    """
    descriptor = _open(path)
    try:
        deadline: float | None = time.monotonic() + _PATIENCE_S
        while not _try(path, descriptor):
            if deadline is not None and time.monotonic() > deadline:
                deadline = None
                warnings.warn(f"Waiting: another process is {what} ({path}).", stacklevel=3)
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder while the block runs; waits for another holder.

    No lock file is written. If the folder cannot be locked, because its file system has no locks or
    this user may not read it, the block runs unlocked.
    """
    descriptor = None
    try:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | _FLAGS)
        while descriptor is not None and not _try(None, descriptor):
            time.sleep(_POLL_S)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def open_lock(path: Path) -> int:
    """Returns the descriptor of a lock file, which is created if absent.

    Raises:
        OSError: If the file cannot be opened, or is a symbolic link.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)


def try_lock(descriptor: int) -> bool:
    """Lock an open file without waiting. Returns False if the file system has no locks.

    Raises:
        BlockingIOError: If another process holds the lock.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError from error
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _open(path: Path) -> int:
    """Returns the descriptor of a lock file that every user may lock.

    The file is opened read-only if it belongs to another user and is not writable.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, _MODE)
    except PermissionError:
        if os.name != "posix" or not path.is_file():
            raise
        return os.open(path, os.O_RDONLY | _FLAGS)
    # The umask has removed bits of the mode. Fails for another user's file, and on Windows.
    with suppress(OSError, AttributeError):
        os.fchmod(descriptor, _MODE)
    return descriptor


def _try(path: Path | None, descriptor: int) -> bool:
    """Whether the block may run: the lock is held, or the file system has no locks."""
    try:
        if not try_lock(descriptor) and path is not None:
            warnings.warn(
                f"{path.parent} is on a file system without locks: see to it that no other process "
                "does the same there at the same time.",
                stacklevel=4,
            )
    except BlockingIOError:
        return False
    return True
