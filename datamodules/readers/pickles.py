"""Pickles of plain data, loaded by the standard library's Unpickler with an allow-list.

A pickle may call any function that it names. `find_class` resolves the names that containers,
numbers and NumPy arrays need to methods of this module, names of harmless types without numbers,
such as dates and paths, to `Unread`, and refuses every other name ("Restricting Globals" in the
documentation of `pickle`). A pickle is loaded as a whole, so one that is larger than the available
memory is refused first. Files may be compressed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import pickletools
import re
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import IO, Any

from datamodules.episodes import DatasetError
from datamodules.memory import available_memory
from datamodules.readers.limits import LimitedFile
from datamodules.readers.pickle_nesting import TupleNesting
from datamodules.readers.pickle_values import PickledArray, PickledDtype, Unread

# What damaged pickles and compressed files raise.
DAMAGED = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    pickle.UnpicklingError,
    zlib.error,
    lzma.LZMAError,
)
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
# Types without numbers for training: they are loaded as `Unread`, and nothing of them is called.
_HARMLESS = re.compile(
    r"(?:__builtin__|builtins) (?:set|frozenset|complex|bytearray|slice|x?range|list|dict|tuple|"
    r"int|long|float|str|bool|bytes)|"
    r"(?:datetime|pathlib|pathlib\._local|uuid|decimal|fractions) \w+|"
    r"collections (?:deque|Counter)|numpy (?:ndarray|bool_?|u?int\d+|float\d+|str_|object_)"
)


class _Refused(Exception):
    """Why a pickle is not read."""


class _DataUnpickler(pickle.Unpickler):
    """Loads plain data and refuses to call anything else.

    Args:
        file: The pickle.
        size: Its size in bytes, which also bounds the data that function calls in it may copy.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, encoding="latin-1")  # as Python 2 wrote arrays
        self._left = size
        self._functions: dict[str, Callable[..., Any]] = {
            "numpy dtype": PickledDtype.make,
            "_codecs encode": self._encode,
            "__builtin__ bytes": self._no_bytes,
            "collections OrderedDict": self._mapping,
            "collections defaultdict": self._mapping_with_default,
        }
        for core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
            self._functions |= {
                f"{core}.multiarray _reconstruct": PickledArray.empty,
                f"{core}.multiarray scalar": PickledArray.scalar,
                f"{core}.numeric _frombuffer": PickledArray.from_buffer,
            }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for a name in a pickle."""
        key = f"{module} {name}"
        if key in self._functions:
            return self._functions[key]
        if not _HARMLESS.fullmatch(key):
            raise _Refused(f"it asks for '{module}.{name}', which data do not need")
        return type(name, (Unread,), {"what": f"{module}.{name}"})

    def _copied(self, count: int) -> None:
        """Limits what calls copy: repeated calls on one object would fill the memory."""
        self._left -= count
        if self._left < 0:
            raise _Refused("it makes more data than are in it")

    def _encode(self, text: str, _: Any = None) -> bytes:
        self._copied(len(text))
        return text.encode("latin-1")

    def _no_bytes(self) -> bytes:
        """The contents of an empty array, as protocols 0 to 2 write them."""
        return b""

    def _mapping(self, *items: Any) -> dict[Any, Any]:
        self._copied(sum(map(len, items)))
        return dict(*items)

    def _mapping_with_default(self, *_: Any) -> dict[Any, Any]:
        return {}


def load_pickle(path: Path) -> list[Any] | tuple[Any, ...] | dict[Any, Any]:
    """Loads a pickled list, tuple or dictionary; nothing that it names is run.

    Raises:
        DatasetError: If the file is damaged, is no container of plain data, asks for a function,
            or is larger than the available memory.
    """
    try:
        size = _checked_size(path)
        with open_maybe_compressed(path) as file:
            loaded = _DataUnpickler(file, size).load()
        if not isinstance(loaded, (list, tuple, dict)):
            raise _Refused("it is a single value, not a list or a dictionary")
        return loaded
    except _Refused as error:
        raise DatasetError(f"{path}: the pickle is not read, as {error}") from error
    except DAMAGED as error:
        raise DatasetError(f"{path}: a damaged pickle ({error}); get or make it again") from error
    except RecursionError as error:
        raise DatasetError(f"{path}: a pickle that is nested too deeply for data") from error
    except (MemoryError, OverflowError) as error:
        raise DatasetError(f"{path}: a damaged pickle, with a length that cannot be") from error


def first_texts(path: Path, opcodes: int) -> set[str]:
    """Returns the texts among the first opcodes of a pickle, such as the keys of an episode.

    Raises:
        DatasetError: If it is damaged.
    """
    try:
        with open_maybe_compressed(path) as file:
            found = [argument for _, argument, _ in islice(pickletools.genops(file), opcodes)]
        return {argument for argument in found if isinstance(argument, str)}
    except (*DAMAGED, MemoryError, OverflowError) as error:
        raise DatasetError(f"{path}: a damaged pickle ({error}); get or make it again") from error


def open_maybe_compressed(path: Path) -> IO[bytes]:
    """Opens a file for reading and decompresses it if it is compressed."""
    with path.open("rb") as file:
        start = file.read(8)
    opener = next((made for magic, made in _OPENERS.items() if start.startswith(magic)), None)
    return path.open("rb") if opener is None else opener(path)


def _checked_size(path: Path) -> int:
    """Returns the decompressed size in bytes, having read all opcodes without executing them.

    The Unpickler allocates its memo by the largest index that a pickle names. Indices count
    objects, so that one above the number of opcodes is none of a pickle that Python wrote.
    """
    size, memory = 0, available_memory()
    most = path.stat().st_size
    nesting = TupleNesting()
    with open_maybe_compressed(path) as file:
        if not isinstance(file, io.BufferedReader):  # compressed: an object of any length
            most = (memory or 1 << 34) // 3
        limited: Any = LimitedFile(file, most)
        for count, (opcode, argument, position) in enumerate(pickletools.genops(limited)):
            nesting.follow(opcode, argument)
            if "PUT" in opcode.name and int(str(argument)) > count:
                raise _Refused(f"its memo has no object {argument}")
            size = int(position or 0)
            if memory is not None and size > memory:
                raise _Refused(
                    f"it is loaded as a whole, and {memory / 1e9:.2g} GB of memory are free; "
                    "convert it on a machine with more, or store it as HDF5"
                )
    return size + 1
