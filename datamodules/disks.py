"""What a disk says when it takes no more."""

from __future__ import annotations

import errno
import os
import re

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def full_disk(error: BaseException) -> str | None:
    """The system's words for it, or None where an error is of another kind.

    Args:
        error: The system's own, or that of HDF5, which hides the number in a text.
    """
    number = getattr(error, "errno", None)
    if number is None and (hidden := re.search(r"\berrno = (\d+)\b", str(error))):
        number = int(hidden[1])
    return os.strerror(number) if number in _FULL else None
