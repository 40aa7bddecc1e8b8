"""Columns that are made when rows are asked for, as it takes time to decode images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from datamodules.episodes import Array


class Deferred:
    """A column that looks like an array of which no row is loaded.

    Args:
        shape: Of all rows.
        dtype: Of the numbers.
        make: Makes the rows from one up to another.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, make: Callable[[int, int], Array]
    ) -> None:
        self.shape, self.dtype, self._make = shape, np.dtype(dtype), make

    def __len__(self) -> int:
        return self.shape[0]

    def head(self, rows: int) -> Deferred:
        """The first rows alone."""
        return Deferred((min(rows, self.shape[0]), *self.shape[1:]), self.dtype, self._make)

    def __getitem__(self, rows: slice | tuple[()]) -> Array:
        rows = rows if isinstance(rows, slice) else slice(None)
        first, last, _ = rows.indices(self.shape[0])
        if last <= first:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        return self._make(first, last)
