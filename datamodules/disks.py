"""What a disk says when it takes no more."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextmanager
def told_when_full(kind: type[Exception], what: str, advice: str) -> Iterator[None]:
    """Tell people of a disk that takes no more; other errors go through as they are.

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
        if number not in _FULL:
            raise
        raise kind(f"{what} cannot be written ({os.strerror(number)}). {advice}") from error
