"""File locks between processes, of one user or of several who share a folder.

A lock is the system's own on an open file (`flock`; a byte range on Windows), so that it ends with
the process that holds it, however that ends.
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

_PATIENCE_S = 2.0  # of waiting without a word
_POLL_S = 0.05
_MODE = 0o666  # every user who may write in the folder may lock
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; wait for another holder, with a warning that says so.

    The lock is an empty file, which stays: to remove it would let two processes in. The file of
    another user, which may only be read, serves as well. On a file system without locks nobody is
    kept out, with a warning.

    Args:
        path: The file, in a folder that can be written.
        what: What the holder does, for those who wait: "another process is making ...".

    Raises:
        OSError: If there is no such file, and it cannot be made.
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
    """Let one process at a time run the block, of those that name the same folder.

    Nothing is left in the folder. Where it cannot be locked, since its file system has no locks or
    this user may not read it, nobody is kept out.
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
    """The descriptor of a lock file, which is made where there is none; links are not followed."""
    return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)


def try_lock(descriptor: int) -> bool:
    """Lock an open file; False where the file system has no locks.

    Raises:
        BlockingIOError: If somebody else holds it.
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
    """A lock file that all may lock; of another user's, what may only be read."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, _MODE)
    except PermissionError:
        if os.name != "posix" or not path.is_file():
            raise
        return os.open(path, os.O_RDONLY | _FLAGS)
    with suppress(OSError, AttributeError):  # the umask is for data; not this user's, or Windows
        os.fchmod(descriptor, _MODE)
    return descriptor


def _try(path: Path | None, descriptor: int) -> bool:
    """Whether to go on: the lock is held, or there are no locks."""
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
