"""Arrays whose rows are read or decoded when they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from datamodules.episodes import Array


class LazyArray:
    """An array of which no row is in memory.

    Args:
        shape: The shape of all rows.
        dtype: The type of the numbers.
        make: Returns the rows from one index up to another.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, make: Callable[[int, int], Array]
    ) -> None:
        self.shape, self.dtype, self._make = shape, np.dtype(dtype), make

    def __len__(self) -> int:
        return self.shape[0]

    def head(self, rows: int) -> LazyArray:
        """Returns the first rows as an array of their own."""
        return LazyArray((min(rows, self.shape[0]), *self.shape[1:]), self.dtype, self._make)

    def __getitem__(self, rows: slice | tuple[()]) -> Array:
        rows = rows if isinstance(rows, slice) else slice(None)
        first, last, _ = rows.indices(self.shape[0])
        if last <= first:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        return self._make(first, last)


class BlockReader:
    """Reads rows of an array on the disk in blocks, each of which serves many episodes.

    Args:
        data: An array, or what has a shape, a type and rows that can be sliced.
    """

    def __init__(self, data: Any) -> None:
        self.data, self._first = data, 0
        self._block: Array = data[:0]

    def slice(self, first: int, last: int) -> LazyArray:
        """Returns some rows, which are read when they are used."""
        shape = (last - first, *self.data.shape[1:])
        return LazyArray(shape, self.data.dtype, lambda a, b: self._rows(first + a, first + b))

    def _rows(self, first: int, last: int) -> Array:
        if isinstance(self.data, np.ndarray):
            return self.data[first:last]
        if not self._first <= first <= last <= self._first + len(self._block):
            wanted = max(last, first + rows_per_block(self.data))
            try:
                self._block, self._first = self.data[first:wanted], first
            except OSError:  # damage in the block costs no other episode
                return np.asarray(self.data[first:last])
        return self._block[first - self._first : last - self._first]


_BLOCK_BYTES = 1 << 24


def rows_per_block(data: Any) -> int:
    """Returns how many rows of a column are read at once."""
    return max(1, int(_BLOCK_BYTES // (data.dtype.itemsize * np.prod(data.shape[1:], dtype=int))))
