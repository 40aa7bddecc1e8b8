"""Arrays of `.npz` files, read by NumPy once their headers are checked."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.lib.npyio import NpzFile

from datamodules.episodes import Array, DatasetError
from datamodules.npy import BAD_HEADER
from datamodules.readers.limits import MOST_DEFLATED, check_in_memory
from datamodules.readers.natural_order import natural_key
from rate.errors import parsing

_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error)


class NpzArrays:
    """An open `.npz` file.

    Args:
        path: The file.
        opened: The file as NumPy opens it, without pickled objects.

    Attributes:
        keys: The names of its arrays.
    """

    def __init__(self, path: Path, opened: NpzFile) -> None:
        self.path, self._opened = path, opened
        self._archive: zipfile.ZipFile = opened.zip  # type: ignore[assignment]  # None once closed
        names = self._archive.namelist()
        self.keys = {name[: -len(".npy")] for name in names if name.endswith(".npy")}

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Returns the shape and the type of an array, whose size in the file is checked.

        Raises:
            DatasetError: If the header is damaged, disagrees with the size of the data, or is of
                anything but numbers.
        """
        place = f"{self.path}: {key}"
        with self._archive.open(f"{key}.npy") as file:
            try:
                if (version := npy.read_magic(file)) != (1, 0):  # others have named fields
                    raise ValueError(f"version {version} of the format")
                shape, _, dtype = npy.read_array_header_1_0(file)
            except (*BAD_HEADER, zlib.error) as error:
                raise DatasetError(f"{place} is damaged or not an array ({error})") from error
            start = file.tell()
        if dtype.kind not in "biuf":
            raise DatasetError(f"{place} holds {dtype}, not numbers; it is not loaded")
        size = self._archive.getinfo(f"{key}.npy").file_size - start
        # A size that the file cannot hold would have NumPy allocate it.
        fits = size <= MOST_DEFLATED * self.path.stat().st_size
        if min(shape, default=0) < 0 or size != math.prod(shape) * dtype.itemsize or not fits:
            raise DatasetError(
                f"{place} is not {dtype} {shape}, as it says: there are {size} bytes of data"
            )
        return shape, dtype

    def array(self, key: str) -> Array:
        """Returns one array.

        Raises:
            DatasetError: As `header`, or if the data are damaged or fill the memory. Pickled
                objects are not loaded.
        """
        shape, dtype = self.header(key)
        check_in_memory(f"{self.path}: {key}", math.prod(shape) * dtype.itemsize)
        with parsing(DatasetError, f"{self.path}: {key}", "is damaged; get or make it again"):
            return np.asarray(self._opened[key])

    def columns(self) -> dict[str, NpzColumn]:
        """Returns every array by name; each is read when its rows, shape or type are used."""
        return {key: NpzColumn(self, key) for key in sorted(self.keys)}


class NpzColumn:
    """An array of an open `.npz` file that is read when its rows are used.

    Attributes:
        shape: Its shape.
        dtype: Its type.
    """

    def __init__(self, npz: NpzArrays, key: str) -> None:
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
        return self._npz.array(self._key)

    def __getitem__(self, rows: Any) -> Array:
        return np.asarray(self._array[rows])


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArrays]:
    """Opens an `.npz` file.

    Raises:
        DatasetError: If it is damaged, now or while it is read.
    """
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as opened:
            yield NpzArrays(path, opened)
    except _DAMAGED as error:
        raise DatasetError(
            f"{path}: not a whole .npz file ({error}); get or make it again"
        ) from error


def npz_files(folder: Path) -> list[Path]:
    """Returns the `.npz` files of a folder in the order of their numbers: 10 comes after 9."""
    return sorted(folder.glob("*.npz"), key=lambda path: natural_key(path.name))
