"""What pickles are made of: NumPy arrays and their types, made without NumPy's own pickle code.

NumPy's functions trust the state in a pickle. Those here take numbers alone and check the length
and the shape of an array first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from datamodules.episodes import Array


class Unread:
    """A value in a pickle that holds no numbers: a date, a path, a text in an array.

    Attributes:
        what: The name of its type.
        shape: As of an array that holds no numbers.
        dtype: Likewise.
    """

    what = "no numbers"
    shape = ()
    dtype = np.dtype(object)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes whatever arguments the pickle has."""

    def __setstate__(self, state: Any) -> None:
        """Keeps nothing."""

    def extend(self, items: Any) -> None:
        """Keeps nothing."""

    append = add = update = extend

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keeps nothing."""

    def __repr__(self) -> str:
        return f"<{self.what}, not read>"


class PickledDtype:
    """A NumPy type of a pickle.

    Attributes:
        value: The type; None if it is not of numbers.
    """

    def __init__(self, name: Any) -> None:
        numbers = isinstance(name, str) and name[:1] in "biuf" and name[1:].isdecimal()
        self.value: np.dtype[Any] | None = np.dtype(name) if numbers else None

    @classmethod
    def make(cls, name: Any, *_: Any) -> PickledDtype:
        """As `numpy.dtype(name, align, copy)`."""
        return cls(name)

    def __setstate__(self, state: Any) -> None:
        if self.value is not None:
            self.value = self.value.newbyteorder(state[1])


class PickledArray(np.ndarray[Any, Any]):
    """A NumPy array of a pickle; it is empty, of objects, if it is not of numbers."""

    @classmethod
    def empty(cls, *_: Any) -> PickledArray:
        """As `numpy._core.multiarray._reconstruct`: `__setstate__` follows."""
        return np.ndarray.__new__(cls, (0,), object)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.value is None:
            return
        data = _bytes(data)
        array = _array(data, dtype.value, shape, "F" if fortran else "C")
        # The state is checked now: numbers, of which there are as many as the shape says.
        state = 1, array.shape, array.dtype, int(fortran), data
        super().__setstate__(state)

    @classmethod
    def from_buffer(cls, data: Any, dtype: Any, shape: Any, order: Any) -> Any:
        """As `numpy._core.numeric._frombuffer`."""
        if dtype.value is None:
            return Unread()
        return _array(data, dtype.value, shape, order).view(cls)

    @classmethod
    def scalar(cls, dtype: Any, data: Any) -> Any:
        """As `numpy._core.multiarray.scalar`."""
        return Unread() if dtype.value is None else np.frombuffer(_bytes(data), dtype.value)[0]


def _bytes(data: Any) -> bytes:
    """The contents of an array; Python 2 wrote them as a text."""
    data = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(data, bytes):
        raise TypeError(f"the contents of an array are {type(data).__name__}")
    return data


def _array(data: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> Array:
    """The numbers of a buffer in a shape, which they fill exactly."""
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"{shape} is no shape")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are not {dtype} {shape}")
    return np.frombuffer(data, dtype).reshape(shape, order=order)
