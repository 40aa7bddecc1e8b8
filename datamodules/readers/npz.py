"""Arrays of `.npz` files, looked at before they are loaded."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.npy import BAD_HEADER
from datamodules.readers.numbered import by_numbers

_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error)


class NpzFile:
    """An open `.npz` file.

    Args:
        path: The file, for messages.
        archive: It, opened.

    Attributes:
        keys: The names of its arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self.keys = {name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")}

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, without its contents."""
        with self._archive.open(f"{key}.npy") as file:
            shape, _, dtype = _read_header(file, f"{self.path}: {key}")
        return shape, dtype

    def columns(self) -> dict[str, NpzColumn]:
        """Every array by name; each is read when its rows, shape or type are asked for."""
        return {key: NpzColumn(self, key) for key in sorted(self.keys)}

    def whole(self, key: str) -> Array:
        """One array of any shape.

        Raises:
            DatasetError: If it is damaged, or holds anything but numbers.
        """
        shape, dtype = self.header(key)
        size = math.prod(shape) * dtype.itemsize
        there = self._archive.getinfo(f"{key}.npy").file_size
        if size > there:
            raise DatasetError(
                f"{self.path}: {key} is not {dtype} {shape}, as it says: {there} bytes of data"
            )
        rows = max(shape[0], 1) if shape else 1
        if shape:
            return self.array(key, rows, max(math.prod(shape[1:]), 1), "an array")
        with self._archive.open(f"{key}.npy") as file:
            _read_header(file, f"{self.path}: {key}")
            return np.frombuffer(file.read(size), dtype).reshape(())

    def array(self, key: str, most_rows: int, largest_row: int, what: str) -> Array:
        """One array; memory is taken for it once its size is known to be sensible.

        Args:
            key: Its name.
            most_rows: The most rows it can have.
            largest_row: The most elements of a row.
            what: What an array within these limits is, for the message.

        Raises:
            DatasetError: If it is damaged, larger, or holds anything but numbers. Pickled objects
                are never loaded.
        """
        place = f"{self.path}: {key}"
        with self._archive.open(f"{key}.npy") as file:
            shape, fortran, dtype = _read_header(file, place)
            row = math.prod(shape[1:])
            if not shape or min(shape) < 0 or shape[0] > most_rows or row > largest_row:
                raise DatasetError(f"{place} has shape {shape}, which is not {what}")
            size = shape[0] * row * dtype.itemsize
            try:
                data = file.read(size)
                rest = file.read(1)
            except zlib.error as error:
                raise DatasetError(f"{place} is damaged ({error}); get or make it again") from error
        if len(data) != size or rest:
            raise DatasetError(
                f"{place} is not {dtype} {shape}, as it says: {len(data)} bytes of data"
            )
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


class NpzColumn:
    """An array of an open `.npz` file, which is read once its rows are asked for.

    Attributes:
        shape: Its shape.
        dtype: Its type.
    """

    def __init__(self, npz: NpzFile, key: str) -> None:
        self._npz, self._key = npz, key

    @property
    def shape(self) -> tuple[int, ...]:
        return self._header[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._header[1]

    @cached_property
    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return self._npz.header(self._key)

    @cached_property
    def _array(self) -> Array:
        return self._npz.whole(self._key)

    def __getitem__(self, rows: Any) -> Array:
        return np.asarray(self._array[rows])


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an `.npz` file.

    Raises:
        DatasetError: If it is damaged, now or while it is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield NpzFile(path, archive)
    except _DAMAGED as error:
        raise DatasetError(
            f"{path}: not a whole .npz file ({error}); get or make it again"
        ) from error


def npz_files(folder: Path) -> list[Path]:
    """The `.npz` files of a folder in the order of their numbers: 10 comes after 9."""
    return sorted(folder.glob("*.npz"), key=lambda path: by_numbers(path.name))


def _read_header(file: IO[bytes], place: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    npy = np.lib.format
    try:
        if (version := npy.read_magic(file)) != (1, 0):  # others hold records of columns
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    except (*BAD_HEADER, zlib.error) as error:
        raise DatasetError(f"{place} is damaged or not an array ({error})") from error
    if dtype.kind not in "biuf":
        raise DatasetError(f"{place} holds {dtype}, not numbers; it is not loaded")
    return shape, fortran, dtype
