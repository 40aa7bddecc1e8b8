"""The public Memory Maze data: folders of `.npz` files, one episode each, in two layouts.

* The data of the RATE paper (arXiv:2306.09459): `obs`, `action`, `reward` and perhaps `done`. The
  action of row t is taken on the frame of row t, and the reward of row t follows.
* The data of the Memory Maze paper (arXiv:2210.13383): `image`, `action`, `reward` and more keys
  that are not read. Action and reward of row t are those that led to the frame of row t, so the
  first row has neither: T + 1 rows are T steps.

The key of the frames tells which layout a file has. A file with `obs` whose first action is one-hot
without a one is read in the second way all the same: there is no such action, only a row before
the first one.

Actions are one-hot, `(T, 6)`, or indices, `(T,)`. Episodes end at the time limit.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError, Episode

_FRAME = (64, 64, 3)
_ACTIONS = 6
# An hour of Memory Maze is 14,400 steps. A damaged header shall not make us allocate terabytes.
_MOST_ROWS = 100_000


def read_npz_folder(folder: Path | str) -> Iterator[Episode]:
    """The episodes of a folder of `.npz` files, one at a time, in the order of their numbers.

    Args:
        folder: Holds the files; other files and folders in it are left alone.

    Raises:
        DatasetError: If there are none, or one is damaged or of another layout; names the file,
            the key and the row. Pickled objects are refused, not loaded.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.npz"), key=_by_numbers)
    if not files:
        raise DatasetError(f"{folder}: there are no .npz files in this folder")
    for file in files:
        yield read_npz(file)


def read_npz(path: Path | str) -> Episode:
    """The episode of one `.npz` file, in either layout.

    Raises:
        DatasetError: If the file is damaged or of another layout.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DatasetError(
            f"{path}: not a whole .npz file ({error}); get or make it again"
        ) from error


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    """So that file 10 comes after file 9."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _read(archive: zipfile.ZipFile, path: Path) -> Episode:
    keys = {name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")}
    frames_key = "image" if "image" in keys else "obs"
    for key in (frames_key, "action", "reward"):
        if key not in keys:
            raise DatasetError(
                f"{path}: there is no key '{key}'; the file has {sorted(keys)}, but Memory Maze "
                "data have 'image' or 'obs', 'action' and 'reward'"
            )
    frames = _array(archive, path, frames_key)
    if frames.shape[1:] != _FRAME or frames.dtype != np.uint8:
        raise DatasetError(
            f"{path}: {frames_key} is {frames.dtype} {frames.shape}, not uint8 (T, 64, 64, 3)"
        )
    rows = len(frames)
    raw = _array(archive, path, "action")
    shift = int(
        frames_key == "image" or (raw.ndim == 2 and len(raw) > 0 and not np.asarray(raw[0]).any())
    )
    rewards = _rewards(_array(archive, path, "reward"), rows, f"{path}: reward")
    actions = _actions(raw, rows, shift, f"{path}: action")
    if "done" in keys:
        _check_done(_array(archive, path, "done"), rows, f"{path}: done")
    if rows - shift < 1:
        raise DatasetError(f"{path}: the file has {rows} rows, which are no step; leave it out")
    return Episode(
        observations=frames[: rows - shift],
        actions=actions,
        rewards=rewards[shift:],
        terminated=False,
        truncated=True,
    )


def _array(archive: zipfile.ZipFile, path: Path, key: str) -> Array:
    """One array, whose size is looked at before memory is taken for it."""
    place = f"{path}: {key}"
    npy: Any = np.lib.format  # without annotations in the NumPy of Python 3.10
    with archive.open(f"{key}.npy") as file:
        try:
            if (version := npy.read_magic(file)) != (1, 0):  # others hold records of columns
                raise ValueError(f"version {version} of the format")
            shape, fortran, dtype = npy.read_array_header_1_0(file)
        except (ValueError, zlib.error) as error:
            raise DatasetError(f"{place} is damaged or not an array ({error})") from error
        if dtype.kind not in "biuf":
            raise DatasetError(f"{place} holds {dtype}, not numbers; it is not loaded")
        row = math.prod(shape[1:])
        if not shape or min(shape) < 0 or shape[0] > _MOST_ROWS or row > math.prod(_FRAME):
            raise DatasetError(f"{place} has shape {shape}, which is not one Memory Maze episode")
        size = shape[0] * row * dtype.itemsize
        try:
            data = file.read(size)
            rest = file.read(1)
        except zlib.error as error:
            raise DatasetError(f"{place} is damaged ({error}); get or make it again") from error
    if len(data) != size or rest:
        raise DatasetError(f"{place} is not {dtype} {shape}, as it says: {len(data)} bytes of data")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _check_rows(array: Array, rows: int, place: str) -> None:
    if len(array) != rows:
        raise DatasetError(f"{place} has {len(array)} rows, but there are {rows} frames")


def _rewards(array: Array, rows: int, place: str) -> Array:
    """`(T,)` float32."""
    _check_rows(array, rows, place)
    if array.ndim != 1:
        raise DatasetError(f"{place} has shape {array.shape}, not (T,)")
    if not np.isfinite(array).all():
        raise DatasetError(f"{place}: row {int(np.argmin(np.isfinite(array)))} is not finite")
    return array.astype(np.float32)


def _actions(array: Array, rows: int, shift: int, place: str) -> Array:
    """`(T,)` int64, from the row `shift` on."""
    _check_rows(array, rows, place)
    if array.ndim == 1 and array.dtype.kind in "iu":
        wrong = (array < 0) | (array >= _ACTIONS)
        indices = array
    elif array.shape[1:] == (_ACTIONS,):
        ones = array == 1
        wrong = ~(ones | (array == 0)).all(axis=1) | (ones.sum(axis=1) != 1)
        indices = ones.argmax(axis=1)
    else:
        raise DatasetError(
            f"{place} is {array.dtype} {array.shape}: neither one-hot, (T, 6), nor integers, (T,)"
        )
    if wrong[shift:].any():
        row = shift + int(np.argmax(wrong[shift:]))
        raise DatasetError(
            f"{place}: row {row} is {array[row]}, neither one-hot nor an integer from 0 to 5"
        )
    return indices[shift:].astype(np.int64)


def _check_done(array: Array, rows: int, place: str) -> None:
    """The end may be marked, but only at the end: a file is one episode."""
    _check_rows(array, rows, place)
    if array.ndim != 1:
        raise DatasetError(f"{place} has shape {array.shape}, not (T,)")
    early = np.flatnonzero(array[:-1])
    if early.size:
        raise DatasetError(
            f"{place}: row {int(early[0])} ends the episode before the last row, {rows - 1}; "
            "split the file into one for each episode"
        )
