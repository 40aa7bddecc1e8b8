"""Folders of other users, for tests of what may be read there and not written."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

STRANGER = 12345
posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX permissions")
needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can be another user"
)


@contextmanager
def another_user():
    """Be another user for a while. What is imported then may lie where only root can read."""
    os.setegid(STRANGER)
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def closed(*folders):
    """Folders that may be read, but not written: as another user, or by their permissions."""
    if os.geteuid() == 0:
        with another_user():
            yield
        return
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)
