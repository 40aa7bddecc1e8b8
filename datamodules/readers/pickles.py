"""Pickles of plain data, read without running anything that stands in them.

A pickle is a program for a small machine with a stack, and Python's own machine calls whatever
function the program names. The one here knows containers, numbers, text and NumPy arrays. The few
names that these need stand for functions of this file; any other name is refused where it stands.

A pickled list or dictionary comes item by item, and what an item is made of is forgotten with it:
memory is bounded by one item, not by the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError

_MARK = object()
_LONG = 1 << 10  # bytes and texts longer than this are contents, which nothing refers to again


class _Refused(Exception):
    """Why a pickle is not read."""


class _Dtype:
    """A NumPy type that is being put together."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or name[:1] not in "biuf" or not name[1:].isdecimal():
            raise _Refused(f"it holds arrays of type {name!r}, not of numbers")
        self._dtype = np.dtype(name)

    def set_state(self, state: Any) -> None:
        self._dtype = self._dtype.newbyteorder(state[1])

    @property
    def value(self) -> np.dtype[Any]:
        return self._dtype


class _Array:
    """A NumPy array that is being put together."""

    def __init__(self, *_: Any) -> None:
        self.value: Array = np.empty(0)

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):  # of Python 2
            data = data.encode("latin-1")
        self.value = _from_buffer(data, dtype, shape, "F" if fortran else "C").value


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return np.frombuffer(data, dtype.value)[0]


def _encode(text: Any, _: Any = None) -> Any:
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """How the protocols of Python 2 write the contents of an empty array."""
    return b""


_NUMPY = {
    "multiarray _reconstruct": _Array,
    "multiarray scalar": _scalar,
    "numeric _frombuffer": _from_buffer,
}
_KNOWN: dict[str, Any] = {
    "numpy ndarray": _Array,
    "numpy dtype": _Dtype,
    "_codecs encode": _encode,
    "__builtin__ bytes": _no_bytes,
    "collections OrderedDict": dict,
    # NumPy 2 moved these.
    **{f"numpy.{core}.{name}": made for core in ("core", "_core") for name, made in _NUMPY.items()},
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT")
_GET = ("GET", "BINGET", "LONG_BINGET")
_NAMES = ("GLOBAL", "STACK_GLOBAL")
_ADD = {"APPEND": 1, "SETITEM": 2}
_ADD_MANY = {"APPENDS": 1, "SETITEMS": 2}
# Opcodes whose argument is the value.
_LITERAL = ("INT", "LONG", "FLOAT", "BYTE", "UNICODE", "STRING")


class _Machine:
    """Runs a pickle as far as data go.

    Attributes:
        ready: Finished items of the outermost list or dictionary; the caller takes them.
        root: The outermost container.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.memoized = 0
        self.recent: list[int] = []  # what was memoized since the last item was finished
        self.root: Any = None
        self.ready: list[Any] = []

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _PUT:
            key = self.memoized if name == "MEMOIZE" else int(argument)
            self.memo[key] = self.stack[-1]
            self.recent.append(key)
            self.memoized += 1
        elif name in _GET:
            if int(argument) not in self.memo:
                raise _Refused("two of its items share an array")
            self.stack.append(self.memo[int(argument)])
        elif name in _NAMES:
            self._name(argument)
        elif name in ("REDUCE", "BUILD"):
            self._make(name)
        elif name in _ADD:
            width = _ADD[name]
            items = self.stack[-width:]
            del self.stack[-width:]
            self._add(items, width)
        elif name in _ADD_MANY:
            self._add(self._since_mark(), _ADD_MANY[name])
        else:
            self._push(name, argument)

    def _push(self, name: str, argument: Any) -> None:
        if name == "MARK":
            self.stack.append(_MARK)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY or name in ("LIST", "DICT"):
            container = _EMPTY[name]() if name in _EMPTY else self._container(name)
            if self.root is None:
                self.root = container
            self.stack.append(container)
        elif name == "TUPLE":
            self.stack.append(tuple(self._since_mark()))
        elif name in _TUPLES:
            items = tuple(self.stack[-_TUPLES[name] :])
            del self.stack[-_TUPLES[name] :]
            self.stack.append(items)
        elif name == "POP":
            self.stack.pop()
        elif any(kind in name for kind in _LITERAL):
            self.stack.append(argument)
        else:
            raise _Refused(f"it uses {name}, which data do not need")

    def _container(self, name: str) -> Any:
        items = self._since_mark()
        return items if name == "LIST" else dict(zip(items[::2], items[1::2], strict=True))

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _name(self, argument: Any) -> None:
        if argument is None:  # STACK_GLOBAL
            module, attribute = self.stack[-2:]
            del self.stack[-2:]
            argument = f"{module} {attribute}"
        if argument not in _KNOWN:
            name = str(argument).replace(" ", ".")
            raise _Refused(f"it asks for '{name}', which data do not need")
        self.stack.append(_KNOWN[argument])

    def _make(self, name: str) -> None:
        argument = self.stack.pop()
        if name == "REDUCE":
            function = self.stack.pop()
            if function not in _KNOWN.values():
                raise _Refused("it calls what is no function")
            self.stack.append(function(*argument))
        else:
            self.stack[-1].set_state(argument)

    def _add(self, items: list[Any], width: int) -> None:
        target = self.stack[-1]
        if target is self.root:
            self._finish(items, width)
        elif width == 1:
            target.extend(map(_plain, items))
        else:
            target.update(zip(items[::2], map(_plain, items[1::2]), strict=True))

    def take_early(self) -> None:
        """Finish the items of the outermost container that stand complete on the stack.

        Python writes them a thousand at a time; when the next one begins, those before are whole.
        """
        if len(self.stack) < 3 or self.stack[0] is not self.root or self.stack[1] is not _MARK:
            return
        width = 2 if isinstance(self.root, dict) else 1
        items = self.stack[2:]
        if len(items) == width and isinstance(items[-1], dict):
            del self.stack[2:]
            self._finish(items, width)

    def _finish(self, items: list[Any], width: int) -> None:
        items = [_plain(item) for item in items]
        self.ready += items if width == 1 else zip(items[::2], items[1::2], strict=True)
        for key in self.recent:
            if key in self.memo and self._is_contents(self.memo[key]):
                del self.memo[key]
        self.recent.clear()

    def _is_contents(self, value: Any) -> bool:
        """Whether a value belongs to one item, unlike names, types and constants."""
        if isinstance(value, tuple):
            return any(map(self._is_contents, value))
        if isinstance(value, (bytes, bytearray, str)):
            return len(value) > _LONG
        return isinstance(value, (_Array, dict, list)) and value is not self.root


def _plain(item: Any) -> Any:
    """What was put together, without the tools for it."""
    if isinstance(item, _Array):
        return item.value
    return tuple(map(_plain, item)) if isinstance(item, tuple) else item


def read_items(path: Path) -> Iterator[Any]:
    """The items of a pickled list, or the `(key, value)` pairs of a pickled dictionary.

    Raises:
        DatasetError: If the file is damaged, is no pickle of a list or dictionary of plain data,
            or asks for a function; nothing is run.
    """
    machine = _Machine()
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("EMPTY_DICT", "BININT1", "BININT", "BININT2"):
                    machine.take_early()
                machine.step(opcode.name, argument)
                yield from machine.ready
                machine.ready.clear()
    except _Refused as error:
        raise DatasetError(f"{path}: the pickle is not read, as {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DatasetError(f"{path}: a damaged pickle ({error}); get or make it again") from error
    except (MemoryError, OverflowError) as error:
        raise DatasetError(f"{path}: a damaged pickle, with a length that cannot be") from error
    if machine.root is None:
        raise DatasetError(f"{path}: a pickle of a single value, not of a list of episodes")
