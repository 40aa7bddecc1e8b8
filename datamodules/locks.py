"""Locks between processes, of one user or of several who share a folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_PATIENCE_S = 2.0  # of waiting without a word
_MODE = 0o666  # every user who may write in the folder may lock


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock, which ends with its process; wait for the holder, and say so.

    The lock is an empty file, which stays: to remove it would let two processes in. The file of
    another user, which may only be read, serves as well.

    Args:
        path: The file, in a folder that can be written.
        what: What the holder does, for those who wait: "another process is making ...".

    Raises:
        OSError: If there is no such file, and it cannot be made.
    """

    def tell() -> None:
        warnings.warn(f"Waiting: another process is {what} ({path}).", stacklevel=2)

    with ExitStack() as stack:
        try:
            stack.enter_context(_own(path, tell))
        except PermissionError:
            if os.name != "posix" or not path.is_file():
                raise
            stack.enter_context(_of_another_user(path, tell))
        yield


def _own(path: Path, tell: Callable[[], None]) -> AbstractContextManager[object]:
    lock = FileLock(path, mode=_MODE)
    try:
        return lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        tell()
        return lock.acquire()


@contextmanager
def _of_another_user(path: Path, tell: Callable[[], None]) -> Iterator[None]:
    """A lock on a file that was opened for reading: `flock` asks for no more."""
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
