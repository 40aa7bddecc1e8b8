"""A file lock that gives a run folder a single writer. It is released when the process ends."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rate.errors import ConfigError
from rate.locks import open_lock, try_lock

LOCK = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Context that holds the lock of a run folder. The system releases it if the process dies.

    Warns if the file system does not support locks, like some network file systems.

    Raises:
        ConfigError: If another process or this one already holds it; the message names the process.
        OSError: If the lock file cannot be written.
    """
    path = folder / LOCK
    descriptor = _acquire(path)
    try:
        yield
    finally:
        # Unlinked while held: a process that opened it before detects the different file.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def is_written(folder: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        try_lock(descriptor)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path) -> int:
    """Returns the descriptor of the locked file; retries if it was unlinked meanwhile."""
    while True:
        descriptor = open_lock(path)
        try:
            has_locks = try_lock(descriptor)
            if not has_locks or _is_there(path, descriptor):
                _sign(descriptor)
                if not has_locks:
                    _warn(path)
                return descriptor
        except BlockingIOError:
            writer = _read(descriptor)
            os.close(descriptor)
            raise ConfigError(
                f"{path.parent} is being written by {writer}. A run has one writer: wait until "
                "that one has ended, or start another run under another --logging.name."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the file at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Write the holder of the lock into the file, for the error message of other processes."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())


def _read(descriptor: int) -> str:
    with suppress(OSError):
        if text := os.read(descriptor, 200).decode(errors="replace"):
            return text
    return "another process"


def _warn(path: Path) -> None:
    warnings.warn(
        f"{path.parent} is on a file system without locks: see to it that no other process writes "
        "this run at the same time.",
        stacklevel=4,
    )
