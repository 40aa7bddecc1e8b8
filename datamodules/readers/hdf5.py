"""HDF5 files with named columns: flat over all episodes, or a group for each episode.

D4RL's files are flat: `observations (N, D)`, `actions (N, A)`, `rewards (N,)`, `terminals (N,)`:
the environment ended the episode at this step; `timeouts (N,)`: the time limit did. So are d3rlpy
1's, whose `episode_terminals` mark the last step of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.flat import FlatColumns, broken_links
from datamodules.readers.named import open_episodes, open_flat
from datamodules.readers.natural_order import natural_key
from datamodules.readers.profile import DatasetProfile
from datamodules.readers.roles import find_roles, role_of
from datamodules.readers.values import parts
from datamodules.source import Source

if TYPE_CHECKING:
    import h5py

_MAGIC = b"\x89HDF\r\n\x1a\n"
_D4RL = {"observations", "actions", "rewards", "terminals"}
_ABOUT = ("infos", "metadata")  # groups of D4RL's files, which are no columns
# What h5py raises for files that were cut off or changed.
DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError)


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def is_d4rl(path: Path) -> bool:
    """Whether a path is an HDF5 file with the arrays that all of D4RL's have, and not d3rlpy's."""
    if not is_hdf5(path):
        return False
    try:
        with hdf5_file(path) as file:
            return bool(file.keys() >= _D4RL) and "episode_terminals" not in file
    except DatasetError:
        return False


def open_hdf5(path: Path, options: Options | None = None) -> Source:
    """A file as a source.

    Args:
        path: The file.
        options: What a person says of the data.

    Raises:
        DatasetError: If the file is damaged, has no columns of trajectories, or something has to
            be said; says what.
    """
    options = options or Options()
    with hdf5_file(path) as file:
        episodes = _episode_groups(file)
        group = _flat_group(file)
        whole = file.keys() >= {*_D4RL, "timeouts"}
    if episodes and not options.columns:
        read = partial(_episodes, path, episodes)
        return open_episodes("hdf5", path, (path,), read, options, len(episodes))
    columns = partial(_flat_columns, path, group)
    if whole:
        options = replace(options, unfinished=options.unfinished or "drop")
    name = "d4rl" if is_d4rl(path) else "hdf5"
    starts_with_reset = False if name == "d4rl" else None
    return open_flat(name, path, (path,), columns, options, starts_with_reset=starts_with_reset)


def broken_chains(path: Path) -> Iterator[str]:
    """Steps whose `next_observations` are not the next step's, though no end is between them.

    Yields:
        What is wrong, naming the file, the episode and the step.
    """
    with hdf5_file(path) as file:
        columns = hdf5_tree(file)
        if "next_observations" not in columns or "timeouts" not in columns:
            return
        profile = DatasetProfile("d4rl", path, Options(zero_rewards=True))
        bounds = FlatColumns(columns, profile, str(path)).bounds
        found = find_roles(columns).values
        now, _ = parts(found["observations"], str(path))
        following, _ = parts(found["next_observations"], str(path))
        broken = broken_links(now, following)
        broken[bounds.ends[:-1] - 1] = False
        for row in np.flatnonzero(broken):
            number = int(np.searchsorted(bounds.ends, row, side="right"))
            step = int(row - bounds.starts[number])
            yield (
                f"{path}, episode {number}: the next observation of step {step} is not that of "
                f"step {step + 1}, though neither a terminal nor a time-out is between them"
            )


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    Raises:
        DatasetError: If it is damaged, now or while it is read.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except DatasetError:
        raise
    except DAMAGED as error:
        raise hdf5_error(path, error) from error


def hdf5_error(path: Path, error: Exception) -> DatasetError:
    """What an error of h5py's means: a file may be damaged, held by another process, or private."""
    if isinstance(error, PermissionError):
        return DatasetError(f"{path}: you may not read it; ask its owner for permission")
    if isinstance(error, BlockingIOError) or "unable to lock file" in str(error):
        return DatasetError(
            f"{path}: another process has it open for writing; end that first (or, if the file is "
            "whole, set HDF5_USE_FILE_LOCKING=FALSE)"
        )
    return DatasetError(f"{path}: a damaged or truncated HDF5 file ({error}); get it again")


def hdf5_tree(group: h5py.Group) -> dict[str, Any]:
    """The arrays of a group by name, and of its groups likewise; nothing is read.

    Raises:
        DatasetError: If an array is in another file: a data set is what its own files hold.
    """
    import h5py

    tree: dict[str, Any] = {}
    for name in group:
        item = None
        if not isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            item = group[name]
        if item is None or (isinstance(item, h5py.Dataset) and item.external):
            raise DatasetError(
                f"{group.file.filename}: {name} stands in another file, which is not read"
            )
        tree[name] = hdf5_tree(item) if isinstance(item, h5py.Group) else item
    return tree


def _has_actions(group: h5py.Group) -> bool:
    """Whether a group has actions among its own arrays."""
    return any(role_of(name) == "actions" and hasattr(group[name], "dtype") for name in group)


def _flat_group(file: h5py.File) -> str:
    """The group that has the columns: the file itself, unless only one of its groups has any."""
    if _has_actions(file):
        return "/"
    inner = [name for name in _groups(file) if _has_actions(file[name])]
    return inner[0] if len(inner) == 1 else "/"


def _episode_groups(file: h5py.File) -> list[str]:
    """The groups of a file that hold an episode each, in the order of their numbers."""
    if _has_actions(file):
        return []
    for above in ("", *_groups(file)):
        names = [f"{above}/{name}" for name in _groups(file[above] if above else file)]
        episodes = [name for name in names if _has_actions(file[name])]
        if len(episodes) > 1 or (episodes and re.search(r"\d", episodes[0].rpartition("/")[2])):
            return sorted(episodes, key=natural_key)
    return []


def _groups(group: h5py.Group) -> list[str]:
    import h5py

    return [name for name, item in group.items() if isinstance(item, h5py.Group)]


@contextmanager
def _flat_columns(path: Path, group: str) -> Iterator[Mapping[str, Any]]:
    with hdf5_file(path) as file:
        tree = hdf5_tree(file[group])
        yield {name: column for name, column in tree.items() if name not in _ABOUT}


def _episodes(
    path: Path, groups: list[str], start: int
) -> Iterator[Mapping[str, Any] | DatasetError]:
    with hdf5_file(path) as file:
        for name in groups[start:]:
            try:
                yield hdf5_tree(file[name])
            except DAMAGED as error:
                yield DatasetError(f"{path}: {name} cannot be read ({error})")
