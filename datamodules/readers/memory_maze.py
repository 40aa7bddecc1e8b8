"""The public Memory Maze data: folders of `.npz` files, one episode each, in two layouts.

* The data of the RATE paper (arXiv:2306.09459): `obs`, `action`, `reward` and perhaps `done`. The
  action of row t is taken on the frame of row t, and the reward of row t follows.
* The data of the Memory Maze paper (arXiv:2210.13383): `image`, `action`, `reward` and more keys
  that are not read. Action and reward of row t are those that led to the frame of row t, so the
  first row has neither: T + 1 rows are T steps.

The key of the frames shows the layout. A file with `obs` whose first one-hot action is all zeros is
read in the second way as well: its first row is that of the reset.

Actions are one-hot, `(T, 6)`, or indices, `(T,)`. Episodes end at the time limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.episodes import Array, DatasetError, Episode
from datamodules.options import Options
from datamodules.readers.npz import NpzArrays, npz_files, open_npz
from datamodules.readers.npz_files import open_npz_files
from datamodules.source import OnBad, Source, raise_error
from rate.envs.memory_maze import memory_maze_spec

_FRAME = (64, 64, 3)
_ACTIONS = 6
# Columns of the environment's hidden state, which its own data have.
_OWN = {
    "maze_layout",
    "agent_pos",
    "agent_dir",
    "target_color",
    "target_pos",
    "target_vec",
    "targets_pos",
    "targets_vec",
}
_OF_OTHERS = {"is_first", "is_last", "is_terminal", "discount", "step_type"}


def open_memory_maze(path: Path, options: Options | None = None) -> Source:
    """Opens a folder as a source. The number of steps is unknown until all files are read.

    If a person maps columns, the data are of another environment with the same image size.
    """
    if options is not None and options.columns:
        return open_npz_files(path, options)
    files = tuple(npz_files(path))
    with open_npz(files[0]) as npz:
        is_certain = bool(npz.keys & _OWN)
    assumed = (
        "64x64 pictures and six actions: taken as data of Memory Maze, whose episodes the time "
        "limit ends (--map obs=observations takes them as of any environment)"
    )
    return Source(
        format="memory-maze",
        path=path,
        files=files,
        spec=memory_maze_spec(),
        read=partial(read_npz_folder, path),
        num_episodes=len(files),
        place=lambda number: str(files[number]),
        notes=() if is_certain else (assumed,),
    )


def is_memory_maze(path: Path) -> bool:
    """Whether a folder's first `.npz` file is of Memory Maze.

    Frames of its size are not enough, as Dreamer's data of any environment have them. Its own
    data have columns that no others have; RATE's are told by the six actions that go with `obs`.
    """
    files = npz_files(path) if path.is_dir() else []
    if not files:
        return False
    try:
        with open_npz(files[0]) as npz:
            key = "image" if "image" in npz.keys else "obs"
            if key not in npz.keys or npz.header(key)[0][1:] != _FRAME:
                return False
            if npz.keys & _OWN:
                return True
            others = key == "image" or npz.keys & _OF_OTHERS or "action" not in npz.keys
            return not others and npz.header("action")[0][1:] == (_ACTIONS,)
    except DatasetError:
        return False


def read_npz_folder(
    folder: Path | str, start: int = 0, on_bad: OnBad = raise_error
) -> Iterator[Episode]:
    """Yields the episodes of a folder of `.npz` files in the order of their numbers.

    Args:
        folder: Holds the files; other files and folders in it are left alone.
        start: The number of the first to read.
        on_bad: Called with the error of each that is damaged or of another layout.

    Raises:
        DatasetError: If there are none, or one is damaged or of another layout; names the file,
            the key and the row. Pickled objects are refused, not loaded.
    """
    files = npz_files(Path(folder))
    if not files:
        raise DatasetError(f"{folder}: there are no .npz files in this folder")
    for file in files[start:]:
        try:
            episode = read_npz(file)
        except DatasetError as error:
            on_bad(error)
        else:
            yield episode


def read_npz(path: Path | str) -> Episode:
    """Returns the episode of one `.npz` file, in either layout.

    Raises:
        DatasetError: If the file is damaged or of another layout.
    """
    path = Path(path)
    with open_npz(path) as npz:
        return _read(npz, path)


def _read(npz: NpzArrays, path: Path) -> Episode:
    frames_key = "image" if "image" in npz.keys else "obs"
    for key in (frames_key, "action", "reward"):
        if key not in npz.keys:
            raise DatasetError(
                f"{path}: there is no key '{key}'; the file has {sorted(npz.keys)}, but Memory "
                "Maze data have 'image' or 'obs', 'action' and 'reward'"
            )
    frames = _array(npz, frames_key)
    if frames.shape[1:] != _FRAME or frames.dtype != np.uint8:
        raise DatasetError(
            f"{path}: {frames_key} is {frames.dtype} {frames.shape}, not uint8 (T, 64, 64, 3)"
        )
    rows = len(frames)
    raw = _array(npz, "action")
    shift = int(
        frames_key == "image" or (raw.ndim == 2 and len(raw) > 0 and not np.asarray(raw[0]).any())
    )
    rewards = _rewards(_array(npz, "reward"), rows, f"{path}: reward")
    actions = _actions(raw, rows, shift, f"{path}: action")
    if "done" in npz.keys:
        _check_done(_array(npz, "done"), rows, f"{path}: done")
    if rows - shift < 1:
        raise DatasetError(f"{path}: the file has {rows} rows, which are no step; leave it out")
    return Episode(
        observations=frames[: rows - shift],
        actions=actions,
        rewards=rewards[shift:],
        terminated=False,
        truncated=True,
        last_observation=frames[-1] if shift else None,
    )


def _array(npz: NpzArrays, key: str) -> Array:
    array = npz.array(key)
    if not array.shape:
        raise DatasetError(f"{npz.path}: {key} has shape (), not a row for each step")
    return array


def _check_rows(array: Array, rows: int, place: str) -> None:
    if len(array) != rows:
        raise DatasetError(f"{place} has {len(array)} rows, but there are {rows} frames")


def _rewards(array: Array, rows: int, place: str) -> Array:
    """Returns the rewards, `(T,)` float32."""
    _check_rows(array, rows, place)
    if array.ndim != 1:
        raise DatasetError(f"{place} has shape {array.shape}, not (T,)")
    if not np.isfinite(array).all():
        raise DatasetError(f"{place}: row {int(np.argmin(np.isfinite(array)))} is not finite")
    return array.astype(np.float32)


def _actions(array: Array, rows: int, shift: int, place: str) -> Array:
    """Returns the actions as indices, `(T,)` int64, from row `shift` on."""
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
    """Checks that no row but the last is marked as an end: a file is one episode."""
    _check_rows(array, rows, place)
    if array.ndim != 1:
        raise DatasetError(f"{place} has shape {array.shape}, not (T,)")
    early = np.flatnonzero(array[:-1])
    if early.size:
        raise DatasetError(
            f"{place}: row {int(early[0])} ends the episode before the last row, {rows - 1}; "
            "split the file into one for each episode"
        )
