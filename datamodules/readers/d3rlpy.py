"""Replay buffers of d3rlpy 2: HDF5 with the columns of each episode under its number.

`columns` names them: `observations_0 (T, *obs)`, `actions_0 (T, A)`, `rewards_0 (T, 1)`,
`terminated_0`, `observations_1`, ...; the parts of a tuple of observations are `observations_0_0`,
`observations_0_1`, ... An episode that is not terminated was truncated. Files of d3rlpy 1 are flat.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.hdf5 import hdf5_episodes, hdf5_file, hdf5_item, is_hdf5_with
from datamodules.readers.named import open_episodes
from datamodules.source import Source

if TYPE_CHECKING:
    import h5py

_COUNTS = ("num_episodes", "total_size")  # of the versions 2.1 and 2.0


def is_d3rlpy(path: Path) -> bool:
    """Whether a path is a replay buffer of d3rlpy 2."""
    return is_hdf5_with(
        path,
        lambda file: (
            "columns" in file and "version" in file and any(key in file for key in _COUNTS)
        ),
    )


def open_d3rlpy(path: Path, options: Options | None = None) -> Source:
    """Opens a replay buffer as a source.

    Raises:
        DatasetError: If it is damaged, or has no episode that can be read.
    """
    with hdf5_file(path) as file:
        keys = [key.decode() if isinstance(key, bytes) else str(key) for key in file["columns"][()]]
        count = next(int(file[key][()]) for key in _COUNTS if key in file)
        if not 0 < count <= len(file):
            raise DatasetError(f"{path}: there cannot be {count} episodes in {len(file)} arrays")
    labels = [f"episode {number}" for number in range(count)]
    read = partial(hdf5_episodes, path, labels, partial(_episode, keys))
    return open_episodes("d3rlpy", path, (path,), read, options, count)


def _episode(keys: list[str], file: h5py.File, number: int) -> dict[str, Any]:
    found = {key: _column(file, f"{key}_{number}") for key in keys}
    if "terminated" in found:
        terminated = bool(found["terminated"][()])
        found |= {"terminated": terminated, "truncated": not terminated}
    return found


def _column(file: h5py.File, name: str) -> Any:
    """Returns a column, or the parts of a tuple as a dictionary."""
    if name in file:
        return hdf5_item(file, name)
    parts: dict[str, Any] = {}
    while f"{name}_{len(parts)}" in file:
        parts[str(len(parts))] = hdf5_item(file, f"{name}_{len(parts)}")
    if not parts:
        raise KeyError(f"there is no {name}")
    return parts
