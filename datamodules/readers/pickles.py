"""Pickles of plain data, read without running anything that stands in them.

A pickle is a program for a small machine with a stack, and Python's own machine calls whatever
function the program names. The one here knows containers, numbers, text and NumPy arrays. The few
names that these need stand for functions of this file. Names of what is harmless and of no use
here, like dates and paths, stand for `Unread`; any other name is refused where it stands.

A pickled list or dictionary comes item by item, and what an item is made of is forgotten with it:
memory is bounded by one item, not by the file. A tuple comes whole, as only its end tells that it
is one. Files may be compressed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickletools
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from datamodules.episodes import DatasetError
from datamodules.readers.pickle_values import HARMLESS, KNOWN, NumpyArray, Unread

_MARK = object()
_TAIL, _CHUNK = 32, 1 << 20
# What damaged pickles and compressed files raise.
DAMAGED = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)
_LONG = 1 << 10  # bytes and texts longer than this are contents, which nothing refers to again


# The end of a pickled tuple: the instruction that makes it, perhaps its number, and a stop.
_TUPLE_ENDS = re.compile(rb"[\x85-\x87t)](\x94|q.|r....|p\d+\n)?\.$", re.DOTALL)
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class _Refused(Exception):
    """Why a pickle is not read."""


class _Shared(Exception):
    """An item refers to what an item before it was made of, which is forgotten."""


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT")
_GET = ("GET", "BINGET", "LONG_BINGET")
_NAMES = ("GLOBAL", "STACK_GLOBAL")
_ADD = {"APPEND": 1, "SETITEM": 2}
_ADD_MANY = {"APPENDS": 1, "SETITEMS": 2, "ADDITEMS": 1}
# Opcodes whose argument is the value.
_LITERAL = ("INT", "LONG", "FLOAT", "BYTE", "UNICODE", "STRING")


class _Machine:
    """Runs a pickle as far as data go.

    Attributes:
        ready: Finished items of the outermost list or dictionary; the caller takes them.
        root: The outermost container.

    Args:
        whole: Whether all comes at once, at the end.
        shared: Numbers of what is not forgotten with the item that it belongs to.
    """

    def __init__(self, whole: bool, shared: frozenset[int]) -> None:
        self._whole, self._shared = whole, shared
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.memoized = 0
        self.recent: list[int] = []  # what was memoized since the last item was finished
        self.root: Any = None
        self.ready: list[Any] = []

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in ("PROTO", "FRAME"):
            return
        if name == "STOP":
            self._stop()
            return
        if name in _PUT:
            key = self.memoized if name == "MEMOIZE" else int(argument)
            self.memo[key] = self.stack[-1]
            self.recent.append(key)
            self.memoized += 1
        elif name in _GET:
            if int(argument) not in self.memo:
                raise _Shared
            self.stack.append(self.memo[int(argument)])
        elif name in _NAMES:
            self._name(argument)
        elif name in ("REDUCE", "BUILD", "NEWOBJ"):
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
            self._begin(container)
            self.stack.append(container)
        elif name == "TUPLE":
            self.stack.append(tuple(self._since_mark()))
        elif name in _TUPLES:
            items = tuple(self.stack[-_TUPLES[name] :])
            del self.stack[-_TUPLES[name] :]
            self.stack.append(items)
        elif name in ("EMPTY_SET", "FROZENSET"):
            if name == "FROZENSET":
                self._since_mark()
            self.stack.append(Unread("a set"))
        elif name == "POP":
            self.stack.pop()
        elif any(kind in name for kind in _LITERAL):
            self.stack.append(argument)
        else:
            raise _Refused(f"it uses {name}, which data do not need")

    def _begin(self, container: Any) -> None:
        """Take a container as the outermost one, if it is."""
        if self.root is None and not self.stack and not self._whole:
            self.root = container

    def _stop(self) -> None:
        """Take what has come whole."""
        found = _plain(self.stack[-1])
        if self.root is None and isinstance(found, (list, tuple, dict)):
            self.root = found
            self.ready += found.items() if isinstance(found, dict) else found

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
        name = str(argument).replace(" ", ".")
        if argument in KNOWN:
            self.stack.append(KNOWN[argument])
        elif HARMLESS.fullmatch(str(argument)):
            self.stack.append(Unread(name))
        else:
            raise _Refused(f"it asks for '{name}', which data do not need")

    def _make(self, name: str) -> None:
        argument = self.stack.pop()
        if name == "BUILD":
            self.stack[-1].set_state(argument)
            return
        function = self.stack.pop()
        if isinstance(function, Unread):
            self.stack.append(Unread(function.what))
        elif name == "NEWOBJ" or not any(function is known for known in KNOWN.values()):
            raise _Refused("it calls what is no function")
        else:
            made = function(*argument)
            if isinstance(made, dict):
                self._begin(made)
            self.stack.append(made)

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
            if key not in self._shared and self._is_contents(self.memo.get(key)):
                del self.memo[key]
        self.recent.clear()

    def _is_contents(self, value: Any, seen: set[int] | None = None) -> bool:
        """Whether a value belongs to one item, unlike names, types and constants."""
        if isinstance(value, tuple):
            seen = set() if seen is None else seen
            if id(value) in seen:  # its parts were looked at
                return False
            seen.add(id(value))
            return any(self._is_contents(part, seen) for part in value)
        if isinstance(value, (bytes, bytearray, str)):
            return len(value) > _LONG
        return isinstance(value, (NumpyArray, dict, list)) and value is not self.root


def _plain(item: Any, made: dict[int, Any] | None = None) -> Any:
    """What was put together, without the tools for it."""
    if isinstance(item, NumpyArray):
        return item.value
    if not isinstance(item, tuple):
        return item
    made = {} if made is None else made
    if id(item) not in made:  # a part may stand in it many times
        made[id(item)] = tuple(_plain(part, made) for part in item)
    return made[id(item)]


def read_items(path: Path) -> Iterator[Any]:
    """The items of a pickled list or tuple, or the `(key, value)` pairs of a pickled dictionary.

    Raises:
        DatasetError: If the file is damaged, is no pickle of a list or dictionary of plain data,
            or asks for a function; nothing is run.
    """
    done, shared = 0, frozenset[int]()
    try:
        whole = _TUPLE_ENDS.search(_tail(path)) is not None
        while True:
            try:
                for number, item in enumerate(_run(path, _Machine(whole, shared))):
                    if number >= done:
                        done += 1
                        yield item
                return
            except _Shared:
                if shared:
                    raise _Refused("it refers to what is not in it") from None
                # Once more; of this file, nothing that is referred to again is forgotten.
                shared = _referred(path) or frozenset((-1,))
    except _Refused as error:
        raise DatasetError(f"{path}: the pickle is not read, as {error}") from error
    except DAMAGED as error:
        raise DatasetError(f"{path}: a damaged pickle ({error}); get or make it again") from error
    except RecursionError as error:
        raise DatasetError(f"{path}: a pickle that is nested too deeply for data") from error
    except (MemoryError, OverflowError) as error:
        raise DatasetError(f"{path}: a damaged pickle, with a length that cannot be") from error


def open_maybe_compressed(path: Path) -> IO[bytes]:
    """Open a file for reading, through whatever it is compressed with."""
    with path.open("rb") as file:
        start = file.read(8)
    opener = next((made for magic, made in _OPENERS.items() if start.startswith(magic)), None)
    return path.open("rb") if opener is None else opener(path)


def _run(path: Path, machine: _Machine) -> Iterator[Any]:
    with open_maybe_compressed(path) as file:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ("EMPTY_DICT", "BININT1", "BININT", "BININT2"):
                machine.take_early()
            machine.step(opcode.name, argument)
            yield from machine.ready
            machine.ready.clear()
    if machine.root is None:
        raise _Refused("it is a single value, not a list or a dictionary")


def _referred(path: Path) -> frozenset[int]:
    """The numbers of all that a pickle refers to."""
    with open_maybe_compressed(path) as file:
        operations = pickletools.genops(file)
        return frozenset(int(str(key)) for opcode, key, _ in operations if opcode.name in _GET)


def _tail(path: Path) -> bytes:
    """The last bytes of a file."""
    tail = b""
    with open_maybe_compressed(path) as file:
        if isinstance(file, io.BufferedReader):  # not compressed
            file.seek(max(0, path.stat().st_size - _TAIL))
        while chunk := file.read(_CHUNK):
            tail = (tail + chunk)[-_TAIL:]
    return tail
