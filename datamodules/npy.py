"""Flat `.npy` files: appended to while their length is unknown, opened as memory maps."""

from __future__ import annotations

import math
import os
import struct
import tokenize
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from rate.files import file_sha256

__all__ = ["NpyWriter", "file_sha256", "open_array"]

# Headers have a fixed size, so that one with the final length can overwrite the first one.
_HEADER_BYTES = 256
# What NumPy raises for damaged headers, which it parses as Python literals.
BAD_HEADER = (ValueError, SyntaxError, tokenize.TokenError, MemoryError)


class NpyWriter:
    """Appends rows to a `.npy` file of any length in constant memory.

    Args:
        path: The file.
        dtype: The type of the elements; rows are cast to it.
        shape: The shape of a row.
        rows: The number of rows of an existing file to keep; rows after them are cut off.

    Raises:
        DatasetError: If the existing file has fewer rows.
    """

    def __init__(
        self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], rows: int = 0
    ) -> None:
        self.path, self.dtype, self.shape, self.rows = path, np.dtype(dtype), shape, rows
        self._file = path.open("r+b" if rows else "wb")
        self._file.write(self._header())
        size = _HEADER_BYTES + rows * self.dtype.itemsize * math.prod(shape)
        if path.stat().st_size < size and rows:
            self._file.close()
            raise DatasetError(
                f"{path}: damaged, there are fewer than the {rows} rows that were written; delete "
                "its folder and begin anew"
            )
        self._file.truncate(size)
        self._file.seek(size)

    def append(self, rows: Array) -> None:
        """Writes `(T, *shape)` rows.

        Raises:
            OSError: If the file cannot be written, for example on a full disk.
        """
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data.cast("B"))
        self.rows += len(rows)

    def sync(self) -> None:
        """Syncs the rows to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes the header with the final length and syncs the file to disk."""
        if self._file.closed:
            return
        self._file.seek(0)
        self._file.write(self._header())
        self.sync()
        self._file.close()

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()

    def _header(self) -> bytes:
        """Returns a header of version 1.0 (`numpy.lib.format`), padded to a fixed size."""
        npy = np.lib.format
        fields = {
            "descr": npy.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.shape),
        }
        prefix = npy.magic(1, 0)
        size = _HEADER_BYTES - len(prefix) - 2
        text = repr(fields).ljust(size - 1) + "\n"
        if len(text) != size:
            raise DatasetError(f"{self.path.name}: an array of shape {self.shape} is not supported")
        return bytes(prefix + struct.pack("<H", size) + text.encode("latin-1"))


def open_array(path: Path, dtype: str, shape: tuple[int, ...], size: int) -> Array:
    """Memory-maps a `.npy` file read-only, after comparing size, type and shape with the manifest.

    Raises:
        DatasetError: If the file is missing, truncated, of another type or shape, or holds pickled
            objects, which are never loaded.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: the file is missing; make the store again")
    actual = path.stat().st_size
    if actual != size:
        raise DatasetError(
            f"{path}: the file has {actual} bytes, but the manifest says {size}; it is truncated "
            "or was changed. Make the store again"
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError:
        raise
    except (*BAD_HEADER, OSError, EOFError) as error:
        raise DatasetError(f"{path}: not a plain .npy file ({error})") from error
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise DatasetError(
            f"{path}: the file holds {array.dtype} {array.shape}, but the manifest says "
            f"{dtype} {shape}"
        )
    # A plain view: indexing a memmap object costs several times more than indexing an array.
    plain: Array = array.view(np.ndarray)
    return plain
