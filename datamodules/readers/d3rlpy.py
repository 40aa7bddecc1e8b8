"""Replay buffers of d3rlpy 2: HDF5 with the columns of each episode under its number.

`columns` names them: `observations_0 (T, *obs)`, `actions_0 (T, A)`, `rewards_0 (T, 1)`,
`terminated_0`, `observations_1`, ...; the parts of a tuple of observations are `observations_0_0`,
`observations_0_1`, ... An episode that is not terminated was cut off. (Files of d3rlpy 1 are flat.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.hdf5 import DAMAGED, hdf5_file, is_hdf5
from datamodules.readers.named import open_episodes
from datamodules.source import Source

if TYPE_CHECKING:
    import h5py

_COUNTS = ("num_episodes", "total_size")  # of the versions 2.1 and 2.0


def is_d3rlpy(path: Path) -> bool:
    """Whether a path is a replay buffer of d3rlpy 2."""
    if not is_hdf5(path):
        return False
    try:
        with hdf5_file(path) as file:
            return "columns" in file and "version" in file and any(key in file for key in _COUNTS)
    except DatasetError:  # damaged: the message is that of any HDF5 file
        return False


def open_d3rlpy(path: Path, options: Options | None = None) -> Source:
    """A replay buffer as a source.

    Raises:
        DatasetError: If it is damaged, or has no episode that can be read.
    """
    with hdf5_file(path) as file:
        keys = [key.decode() if isinstance(key, bytes) else str(key) for key in file["columns"][()]]
        count = next(int(file[key][()]) for key in _COUNTS if key in file)
        if not 0 < count <= len(file):
            raise DatasetError(f"{path}: there cannot be {count} episodes in {len(file)} arrays")
    return open_episodes(
        "d3rlpy", path, (path,), partial(_episodes, path, keys, count), options, count
    )


def _episodes(
    path: Path, keys: list[str], count: int, start: int
) -> Iterator[Mapping[str, Any] | DatasetError]:
    with hdf5_file(path) as file:
        for number in range(start, count):
            try:
                found = {key: _column(file, f"{key}_{number}") for key in keys}
            except DAMAGED as error:
                yield DatasetError(f"{path}, episode {number}: cannot be read ({error})")
                continue
            if "terminated" in found:
                terminated = bool(found["terminated"][()])
                found |= {"terminated": terminated, "truncated": not terminated}
            yield found


def _column(file: h5py.File, name: str) -> Any:
    """A column, or the parts of a tuple."""
    if name in file:
        return file[name]
    parts: dict[str, Any] = {}
    while f"{name}_{len(parts)}" in file:
        parts[str(len(parts))] = file[f"{name}_{len(parts)}"]
    if not parts:
        raise KeyError(f"there is no {name}")
    return parts
