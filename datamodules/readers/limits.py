"""Limits of what a file may claim to hold, checked before it is read or memory is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from datamodules.episodes import DatasetError
from datamodules.memory import available_memory

MOST_DEFLATED = 1032
"""How many times smaller DEFLATE makes data at most (RFC 1951)."""

MOST_AT_ONCE = 1 << 29
"""The most bytes of what is only decoded as a whole: a record, an image, a chunk of an array."""


def check_at_once(place: str, size: int) -> None:
    """Checks the size of what is only decoded as a whole.

    Raises:
        DatasetError: If it is larger than `MOST_AT_ONCE`.
    """
    if size > MOST_AT_ONCE:
        raise DatasetError(
            f"{place} has {size:,} bytes in one piece, and at most {MOST_AT_ONCE:,} are decoded"
        )


def check_in_memory(place: str, size: int) -> None:
    """Checks the size of what is loaded as a whole.

    Raises:
        DatasetError: If it is more than the available memory.
    """
    memory = available_memory()
    if memory is not None and size > memory:
        raise DatasetError(
            f"{place} has {size:,} bytes, which are loaded as a whole, and {memory:,} are free; "
            "convert it on a machine with more memory, or store it as HDF5"
        )


def check_fits(place: str, size: int, path: Path) -> None:
    """Checks the size of what may be compressed in a file.

    Raises:
        DatasetError: If the file is too small for it.
    """
    if size > MOST_DEFLATED * path.stat().st_size:
        raise DatasetError(f"{place} cannot have {size:,} bytes in this file")


class LimitedFile:
    """A file for parsers that trust the lengths in it: a read of more than a limit is refused.

    Args:
        file: The file.
        most: The most bytes of one read.
    """

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most
        self.readline, self.tell = file.readline, file.tell

    def __enter__(self) -> LimitedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Reads as a file does.

        Raises:
            ValueError: If `size` is larger than the limit.
        """
        if size > self._most:
            raise ValueError(f"a length of {size:,} bytes, in a file of at most {self._most:,}")
        return self._file.read(size)
