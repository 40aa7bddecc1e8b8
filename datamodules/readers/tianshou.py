"""Replay buffers of tianshou that were saved as HDF5 (`buffer.save_hdf5`).

The columns are in the group `_meta`: `obs`, `act`, `rew`, `terminated`, `truncated`, `obs_next`.
A buffer is a ring: it has room for more steps than there are, and the oldest step of a full one
follows the one that was written last. A vector buffer has one ring per environment, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.hdf5 import hdf5_file, hdf5_tree, is_hdf5_with
from datamodules.readers.lazy_array import LazyArray
from datamodules.readers.named import open_flat
from datamodules.readers.values import num_rows
from datamodules.source import Source

if TYPE_CHECKING:
    import h5py

_GROUP = "_meta"


def is_tianshou(path: Path) -> bool:
    """Whether a path is a saved replay buffer."""
    return is_hdf5_with(path, lambda file: _GROUP in file and "maxsize" in file.attrs)


def open_tianshou(path: Path, options: Options | None = None) -> Source:
    """Opens a buffer as a source.

    Raises:
        DatasetError: If it is damaged or empty.
    """
    with hdf5_file(path) as file:
        _, full = _rings(file)
    notes = (
        (f"{full} full buffers were written over: their first episodes have lost their beginning",)
        if full
        else ()
    )
    return open_flat("tianshou", path, (path,), partial(_columns, path), options, notes)


@contextmanager
def _columns(path: Path) -> Iterator[Mapping[str, Any]]:
    with hdf5_file(path) as file:
        rings, _ = _rings(file)
        rows = np.concatenate(rings)
        if not len(rows):
            raise DatasetError(f"{path}: the buffer is empty")
        found = {k: v for k, v in hdf5_tree(file[_GROUP]).items() if k not in ("info", "policy")}
        columns = _in_order(found, rows)
        if len(rings) > 1:  # an episode does not go on in the ring of another environment
            columns["episode"] = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
        yield columns


def _rings(file: h5py.File) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Returns the rows of each environment in temporal order, and how many rings are full."""
    room = int(file.attrs["maxsize"])
    starts = np.asarray(file["_offset"][()]) if "_offset" in file else np.zeros(1, np.int64)
    lengths = (
        np.asarray(file["_lengths"][()])
        if "_lengths" in file
        else np.array([int(file.attrs["_size"])])
    )
    last = np.asarray(file["last_index"][()])
    rings, full = [], 0
    for start, end, length, newest in zip(
        starts, np.append(starts[1:], room), lengths, last, strict=True
    ):
        ring = start + np.arange(min(length, end - start), dtype=np.int64)
        oldest = int(newest) + 1 - int(start)
        if len(ring) == end - start and oldest < len(ring):
            ring = np.roll(ring, -oldest)
            full += 1
        rings.append(ring)
    return rings, full


def _in_order(columns: Mapping[str, Any], rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Returns columns with their rows in another order, which are read when they are used."""
    made: dict[str, Any] = {}
    for name, column in columns.items():
        if isinstance(column, Mapping):
            made[name] = _in_order(column, rows)
        elif num_rows(column):
            made[name] = LazyArray(
                (len(rows), *column.shape[1:]), column.dtype, partial(_take, column, rows)
            )
    return made


def _take(column: Any, rows: npt.NDArray[np.int64], first: int, last: int) -> Any:
    """Returns some rows, read in runs that are contiguous in the file."""
    wanted = rows[first:last]
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1) if len(wanted) else []
    parts = [column[run[0] : run[-1] + 1] for run in runs]
    return np.concatenate(parts) if parts else column[:0]
