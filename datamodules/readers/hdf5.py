"""HDF5 files with named columns: flat over all episodes, or a group for each episode.

D4RL's files are flat: `observations (N, D)`, `actions (N, A)`, `rewards (N,)`, `terminals (N,)`
where the environment ended the episode, and `timeouts (N,)` where the time limit did. Files of
d3rlpy 1 are flat as well; `episode_terminals` mark the last step of each episode.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.flat import FlatColumns, broken_links
from datamodules.readers.limits import check_at_once, check_fits
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
_NOT_COLUMNS = ("infos", "metadata")  # groups of D4RL's files
# What h5py raises for files that were cut off or changed.
DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError)


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def is_hdf5_with(path: Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether a path is an HDF5 file that passes a test.

    A damaged one passes none; `open_hdf5` then says what is wrong with it.
    """
    if not is_hdf5(path):
        return False
    try:
        with hdf5_file(path) as file:
            return test(file)
    except DatasetError:
        return False


def is_d4rl(path: Path) -> bool:
    """Whether a path is an HDF5 file with the arrays that all of D4RL's have, and not d3rlpy's."""
    return is_hdf5_with(
        path, lambda file: bool(file.keys() >= _D4RL) and "episode_terminals" not in file
    )


def open_hdf5(path: Path, options: Options | None = None) -> Source:
    """Opens a file as a source.

    Args:
        path: The file.
        options: The options of reading the data.

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
        read = partial(
            hdf5_episodes, path, episodes, lambda file, number: hdf5_tree(file[episodes[number]])
        )
        return open_episodes("hdf5", path, (path,), read, options, len(episodes))
    columns = partial(_flat_columns, path, group)
    if whole:
        options = replace(options, unfinished=options.unfinished or "drop")
    name = "d4rl" if is_d4rl(path) else "hdf5"
    starts_with_reset = False if name == "d4rl" else None
    return open_flat(name, path, (path,), columns, options, starts_with_reset=starts_with_reset)


def broken_chains(path: Path) -> Iterator[str]:
    """Yields a message for each step whose `next_observations` are not those of the next step.

    The last steps of episodes are left out. A message names the file, the episode and the step.
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
    """Opens a file for reading.

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
    """Returns what an h5py error means: a damaged, locked or private file."""
    if isinstance(error, PermissionError):
        return DatasetError(f"{path}: you may not read it; ask its owner for permission")
    if isinstance(error, BlockingIOError) or "unable to lock file" in str(error):
        return DatasetError(
            f"{path}: another process has it open for writing; end that first (or, if the file is "
            "whole, set HDF5_USE_FILE_LOCKING=FALSE)"
        )
    return DatasetError(f"{path}: a damaged or truncated HDF5 file ({error}); get it again")


def hdf5_tree(group: h5py.Group) -> dict[str, Any]:
    """Returns the arrays of a group by name, with nested groups as dictionaries; nothing is read.

    Raises:
        DatasetError: As `hdf5_item`.
    """
    items = {name: hdf5_item(group, name) for name in group}
    return {name: hdf5_tree(i) if hasattr(i, "keys") else i for name, i in items.items()}


def hdf5_item(group: h5py.Group, name: str) -> Any:
    """Returns an array or a group by its name.

    Raises:
        DatasetError: If it stands in another file, by an external link, external storage or a
            virtual data set: a data set is what its own files hold. Or if it is of a size that its
            file cannot hold, or its chunks are larger than `MOST_AT_ONCE`.
        KeyError: If there is none.
    """
    import h5py

    path, item = group.file.filename, None
    if not isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        item = group[name]
    if item is None or item.file.filename != path or _is_elsewhere(item):
        raise DatasetError(f"{path}: {name} stands in another file, which is not read")
    check_fits(f"{path}: {name}", getattr(item, "nbytes", 0), Path(path))
    if chunk := getattr(item, "chunks", None):
        check_at_once(f"{path}: {name}", math.prod(chunk) * item.dtype.itemsize)
    return item


def _is_elsewhere(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Dataset) and bool(item.external or item.is_virtual)


def _has_actions(group: h5py.Group) -> bool:
    """Whether a group has actions among its own arrays."""
    named = [name for name in group if role_of(name) == "actions"]
    return any(hasattr(hdf5_item(group, name), "dtype") for name in named)


def _flat_group(file: h5py.File) -> str:
    """Returns the group that holds the columns: the file itself, or its only group with actions."""
    if _has_actions(file):
        return "/"
    inner = [name for name in _groups(file) if _has_actions(file[name])]
    return inner[0] if len(inner) == 1 else "/"


def _episode_groups(file: h5py.File) -> list[str]:
    """Returns the groups that hold one episode each, in the order of their numbers."""
    if _has_actions(file):
        return []
    for above in ("", *_groups(file)):
        names = [f"{above}/{name}" for name in _groups(file[above] if above else file)]
        episodes = [name for name in names if _has_actions(file[name])]
        if len(episodes) > 1 or (episodes and re.search(r"\d", episodes[0].rpartition("/")[2])):
            return sorted(episodes, key=natural_key)
    return []


def _groups(group: h5py.Group) -> list[str]:
    return [name for name in group if hasattr(hdf5_item(group, name), "keys")]


@contextmanager
def _flat_columns(path: Path, group: str) -> Iterator[Mapping[str, Any]]:
    with hdf5_file(path) as file:
        tree = hdf5_tree(file[group])
        yield {name: column for name, column in tree.items() if name not in _NOT_COLUMNS}


def hdf5_episodes(
    path: Path,
    labels: Sequence[str],
    read: Callable[[h5py.File, int], Mapping[str, Any]],
    start: int,
) -> Iterator[Mapping[str, Any] | DatasetError]:
    """Yields the columns of the episodes of a file, an error in the place of a damaged one.

    Args:
        path: The file.
        labels: A name for each episode, for messages.
        read: Returns the columns of the episode of a number.
        start: The number of the first episode.
    """
    with hdf5_file(path) as file:
        for number in range(start, len(labels)):
            try:
                yield read(file, number)
            except DAMAGED as error:
                yield DatasetError(f"{path}, {labels[number]}: cannot be read ({error})")
