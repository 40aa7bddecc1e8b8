"""What pickles are made of: NumPy arrays and plain containers, made without running code."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from datamodules.episodes import Array


class Unread:
    """What stands in a pickle and is no data: text in arrays, dates, paths, sets and the like.

    Attributes:
        what: What it is.
        shape: Of no array.
        dtype: Of no numbers.
    """

    shape = ()
    dtype = np.dtype(object)

    def __init__(self, what: str) -> None:
        self.what = what

    def set_state(self, state: Any) -> None:
        """Nothing is kept."""

    def extend(self, items: Any) -> None:
        """Nothing is kept."""

    update = extend

    def __repr__(self) -> str:
        return f"<{self.what}, not read>"


class NumpyType:
    """A NumPy type that is being put together.

    Attributes:
        value: The type; None if it is not of numbers.
    """

    def __init__(self, name: Any, *_: Any) -> None:
        numbers = isinstance(name, str) and name[:1] in "biuf" and name[1:].isdecimal()
        self.value: np.dtype[Any] | None = np.dtype(name) if numbers else None

    def set_state(self, state: Any) -> None:
        if self.value is not None:
            self.value = self.value.newbyteorder(state[1])


class NumpyArray:
    """A NumPy array that is being put together."""

    def __init__(self, *_: Any) -> None:
        self.value: Array | Unread = np.empty(0)

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):  # of Python 2
            data = data.encode("latin-1")
        self.value = _from_buffer(data, dtype, shape, "F" if fortran else "C").value


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> NumpyArray:
    array = NumpyArray()
    if dtype.value is None:
        array.value = Unread("an array of what is not numbers")
        return array
    array.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return (
        Unread("a text or an object")
        if dtype.value is None
        else np.frombuffer(data, dtype.value)[0]
    )


def _encode(text: Any, _: Any = None) -> Any:
    return text.encode("latin-1")


def _defaults(*_: Any) -> dict[Any, Any]:
    """A dictionary with a default value, which no data need."""
    return {}


def _no_bytes() -> bytes:
    """How the protocols of Python 2 write the contents of an empty array."""
    return b""


_NUMPY = {
    "multiarray _reconstruct": NumpyArray,
    "multiarray scalar": _scalar,
    "numeric _frombuffer": _from_buffer,
}
KNOWN: dict[str, Any] = {
    "numpy ndarray": NumpyArray,
    "numpy dtype": NumpyType,
    "_codecs encode": _encode,
    "__builtin__ bytes": _no_bytes,
    "collections OrderedDict": dict,
    "collections defaultdict": _defaults,
    # NumPy 2 moved these.
    **{f"numpy.{core}.{name}": made for core in ("core", "_core") for name, made in _NUMPY.items()},
}
# Names that nothing is called by: they stand for what is not read.
HARMLESS = re.compile(
    r"(?:__builtin__|builtins) (?:set|frozenset|complex|bytearray|slice|x?range|list|dict|tuple|"
    r"int|long|float|str|bool|bytes)|"
    r"(?:datetime|pathlib|pathlib\._local|uuid|decimal|fractions) \w+|"
    r"collections (?:deque|Counter)|numpy (?:bool_?|u?int\d+|float\d+|str_|object_)"
)
