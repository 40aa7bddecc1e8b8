"""A store of shards: stores in one folder that are one data set, opened when they are used.

Its manifest lists the shards with the digests of their manifests. What an episode has once
(offsets, ends, seeds) stands in files beside it; the arrays with a row per step stay in the shards.
Each is memory-mapped and compared with its digest when one of its rows is first read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.checked_arrays import CheckedArrays
from datamodules.episodes import Array, DatasetError
from datamodules.store_files import LAST, MANIFEST, OBSERVATIONS
from rate.files import file_sha256

SHARDS = "shards"  # in the manifest
SHARDED_VERSION = 2  # of the schema
_SHARDED = ("actions", "rewards", "returns_to_go", OBSERVATIONS, LAST)
OpenArrays = Callable[[Path], CheckedArrays]


def is_sharded(name: str) -> bool:
    """Whether an array stays in the shards."""
    return name.partition("/")[0] in _SHARDED


@dataclass(frozen=True)
class Shard:
    """A store that is a part of another one.

    Attributes:
        path: Its directory.
        digest: The SHA-256 of its manifest.
        open_arrays: Memory-maps the arrays of a store.
    """

    path: Path
    digest: str
    open_arrays: OpenArrays

    @cached_property
    def arrays(self) -> CheckedArrays:
        """Its arrays, opened at the first use.

        Raises:
            DatasetError: If it is another store than the one that was joined.
        """
        if file_sha256(self.path / MANIFEST) != self.digest:
            raise DatasetError(
                f"{self.path}: not the store that was joined, as its {MANIFEST} is another; put it "
                "back, or join the folder again"
            )
        return self.open_arrays(self.path)

    def check(self, wait: bool) -> None:
        """Raises the error of an altered file among those in use; see `CheckedArrays.check`."""
        if "arrays" in self.__dict__:
            self.arrays.check(wait)


class ShardedArray:
    """The rows of an array of several shards, one after another.

    Args:
        name: The name of the array.
        shards: The shards.
        rows: The number of rows in each.
        dtype: The type of the elements.
        shape: The shape of a row.
    """

    def __init__(
        self, name: str, shards: list[Shard], rows: list[int], dtype: str, shape: tuple[int, ...]
    ) -> None:
        self.name, self.shards, self.dtype = name, shards, np.dtype(dtype)
        self.starts = np.concatenate(([0], np.cumsum(rows, dtype=np.int64)))
        self.shape = (int(self.starts[-1]), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The size of all rows in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def piece(self, index: int) -> Array:
        """Returns the rows of one shard.

        Raises:
            DatasetError: If they are not what the manifest says.
        """
        array = self.shards[index].arrays[self.name]
        expected = (int(self.starts[index + 1] - self.starts[index]), *self.shape[1:])
        if array.shape != expected or array.dtype != self.dtype:
            raise DatasetError(
                f"{self.shards[index].path}: {self.name} is {array.dtype} {array.shape}, and the "
                f"joined store says {self.dtype} {expected}; join the folder again"
            )
        return array

    def __getitem__(self, rows: Any) -> Array:
        """Returns one row, the rows of a slice without a step, or those of an index array."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return self._range(start, stop)
        index = np.asarray(rows)
        out = np.empty((*index.shape, *self.shape[1:]), self.dtype)
        self.take(index, out)
        return out

    def _range(self, start: int, stop: int) -> Array:
        first, last = np.searchsorted(self.starts, (start, max(stop - 1, start)), side="right") - 1
        parts = [
            self.piece(i)[max(start - self.starts[i], 0) : max(stop - self.starts[i], 0)]
            for i in range(int(first), int(last) + 1)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, rows: Array, out: Array) -> None:
        """Gathers rows, `(...)` int64, into `out`, `(..., *row)`; opens their shards alone."""
        flat, into = rows.reshape(-1), out.reshape(-1, *self.shape[1:])
        owners = np.searchsorted(self.starts, flat, side="right") - 1
        for owner in np.unique(owners):
            of_shard = owners == owner
            into[of_shard] = self.piece(int(owner))[flat[of_shard] - self.starts[owner]]

    def check(self, wait: bool) -> None:
        """Raises the error of an altered file among those in use."""
        for shard in self.shards:
            shard.check(wait)


def pieces(array: Any) -> Iterator[tuple[int, Array]]:
    """Yields the memory-mapped parts of an array, and the number of the first row of each."""
    if not isinstance(array, ShardedArray):
        yield 0, array
        return
    for index, (start, stop) in enumerate(pairwise(array.starts)):
        if stop > start:
            yield int(start), array.piece(index)


def open_shards(
    path: Path, manifest: dict[str, Any], open_arrays: OpenArrays
) -> dict[str, ShardedArray]:
    """Returns the arrays of a manifest that stay in its shards; no shard is opened.

    Raises:
        DatasetError: If a shard is not a folder of the store.
    """
    shards, steps, episodes = [], [], []
    for entry in manifest[SHARDS]:
        folder = path / str(entry["folder"])
        if folder.name != entry["folder"] or folder.is_symlink() or not folder.is_dir():
            raise DatasetError(
                f"{path / MANIFEST}: the shard {entry['folder']!r} is not a folder in {path}"
            )
        shards.append(Shard(folder, str(entry["sha256"]), open_arrays))
        steps.append(int(entry["num_steps"]))
        episodes.append(int(entry["num_episodes"]))
    return {
        str(name): ShardedArray(
            str(name),
            shards,
            episodes if str(name).startswith(LAST) else steps,
            entry["dtype"],
            tuple(entry["shape"][1:]),
        )
        for name, entry in manifest["arrays"].items()
        if is_sharded(str(name))
    }
