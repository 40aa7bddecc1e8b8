"""The public data of the RATE paper: folders of `.npz` files, and the T-Maze pickle.

A folder has one file an episode with `obs (T, ...)`, `action`, `reward` and perhaps `done`; the
robot data have `rgb` and `joints` in place of `obs`, and `success`, which is the reward that the
published models see. `action[t]` is taken on `obs[t]`, and `reward[t]` follows. Pictures that
were stored as floats from 0 to 1 become the bytes that they were made of. Episodes whose last
`done` is not set were ended by the time limit.

The T-Maze pickle is a dictionary of episodes: `obs (T + 1, 4)`, `action (T,)`, `rtg (T + 1,)` and
`done (T,)`; a reward is the difference of two returns-to-go.

Memory Maze has a reader of its own, `datamodules.readers.memory_maze`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Array, DatasetError, Episode
from datamodules.readers.ends import check_ends
from datamodules.readers.npz import NpzFile, npz_files, open_npz
from datamodules.readers.pickles import read_items
from datamodules.source import UNKNOWN_RETURN, ActionRange, OnBad, Source, observation_box, refuse
from rate.envs.minigrid_memory import minigrid_memory_spec
from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import TMAZE_SPEC
from rate.envs.two_colors import two_colors_spec

# A damaged header shall not make us allocate terabytes.
_MOST_ROWS, _LARGEST_ROW = 1_000_000, 1 << 20
_ROBOT = ("rgb", "joints")
# Environments whose public data are told by the shape of their pictures.
_BY_SHAPE: dict[tuple[int, ...], Callable[[], EnvironmentSpec]] = {
    (3, 64, 112): two_colors_spec,
    (3, 84, 84): minigrid_memory_spec,
}


def is_rate_folder(path: Path) -> bool:
    """Whether a folder's first `.npz` file has the keys of such data."""
    files = npz_files(path) if path.is_dir() else []
    if not files:
        return False
    try:
        with open_npz(files[0]) as npz:
            return "action" in npz.keys and ("obs" in npz.keys or set(_ROBOT) <= npz.keys)
    except DatasetError:
        return True  # damaged, and the only kind of folder it can be


def open_rate_folder(path: Path) -> Source:
    """A folder as a source. The actions are read from all files, to count and to infer the space.

    Raises:
        DatasetError: If there is no whole episode.
    """
    files = tuple(npz_files(path))
    actions, steps = ActionRange(), 0
    first: Episode | None = None
    bad: DatasetError | None = None
    for file in files:
        try:
            first = first or read_rate_npz(file)
            with open_npz(file) as npz:
                found = _actions(npz)
        except DatasetError as error:
            bad = bad or error
        else:
            actions.see(found)
            steps += len(found)
    if first is None:
        raise bad or DatasetError(f"{path}: there are no .npz files in this folder")
    return Source(
        format="rate-npz",
        path=path,
        files=files,
        spec=_infer(first, actions.space()),
        read=partial(read_rate_folder, path),
        num_episodes=len(files),
        num_steps=steps,
        place=lambda number: str(files[number]),
    )


def read_rate_folder(
    folder: Path | str, start: int = 0, on_bad: OnBad = refuse
) -> Iterator[Episode]:
    """The episodes of a folder, one at a time, in the order of their files' numbers.

    Args:
        folder: Holds the files.
        start: The number of the first to read.
        on_bad: Told of each that is damaged or of another layout.
    """
    for file in npz_files(Path(folder))[start:]:
        try:
            episode = read_rate_npz(file)
        except DatasetError as error:
            on_bad(error)
        else:
            yield episode


def read_rate_npz(path: Path | str) -> Episode:
    """The episode of one file.

    Raises:
        DatasetError: If the file is damaged or of another layout; names the key and the step.
    """
    path = Path(path)
    with open_npz(path) as npz:
        actions = _actions(npz)
        steps = len(actions)
        parts = {key: _pixels(_array(npz, key)) for key in _ROBOT if key in npz.keys}
        observations = parts or {"obs": _pixels(_array(npz, "obs"))}
        rewards = _array(npz, "success" if parts and "success" in npz.keys else "reward")
        done = _array(npz, "done") if "done" in npz.keys else np.zeros(steps, bool)
    if not steps:
        raise DatasetError(f"{path}: the episode has no steps")
    extra = min(len(array) for array in observations.values()) - steps
    for key, array in {**observations, "reward": rewards, "done": done}.items():
        wanted = steps + extra if key in observations and extra == 1 else steps
        if len(array) != wanted:
            raise DatasetError(f"{path}: {key} has {len(array)} steps, but action has {steps}")
    terminated = check_ends(done, f"{path}: done")
    last = {key: array[-1] for key, array in observations.items()} if extra == 1 else None
    inputs = {key: array[:steps] for key, array in observations.items()}
    return Episode(
        observations=inputs if parts else inputs["obs"],
        actions=actions,
        rewards=_numbers(rewards).reshape(-1) if rewards.size == steps else rewards,
        terminated=terminated,
        truncated=not terminated,
        last_observation=last if parts or last is None else last["obs"],
    )


def is_tmaze_pickle(path: Path) -> bool:
    """Whether a file is a pickled dictionary of T-Maze episodes."""
    try:
        return path.is_file() and _is_entry(next(read_items(path), None))
    except DatasetError:
        return False


def _is_entry(item: Any) -> bool:
    return isinstance(item, tuple) and isinstance(item[1], dict) and "rtg" in item[1]


def open_tmaze_pickle(path: Path) -> Source:
    """A T-Maze pickle as a source. It is read once, to count.

    Raises:
        DatasetError: If it is damaged.
    """
    bad: list[DatasetError] = []
    lengths = [len(episode) for episode in read_tmaze_pickle(path, on_bad=bad.append)]
    return Source(
        format="rate-tmaze",
        path=path,
        files=(path,),
        spec=TMAZE_SPEC,
        read=partial(read_tmaze_pickle, path),
        num_episodes=len(lengths) + len(bad),
        num_steps=sum(lengths),
    )


def read_tmaze_pickle(
    path: Path | str, start: int = 0, on_bad: OnBad = refuse
) -> Iterator[Episode]:
    """The episodes of a T-Maze pickle, one at a time; nothing that stands in it is run.

    Args:
        path: The file.
        start: The number of the first to read.
        on_bad: Told of each that cannot be used.

    Raises:
        DatasetError: If the file is damaged or asks for anything but data.
    """
    for number, item in enumerate(read_items(Path(path))):
        if number < start:
            continue
        try:
            episode = _tmaze_episode(item, f"{path}, episode {number}")
        except DatasetError as error:
            on_bad(error)
        else:
            yield episode


def _tmaze_episode(item: Any, place: str) -> Episode:
    wanted = ("obs", "action", "rtg", "done")
    data = item[1] if _is_entry(item) else {}
    if not all(isinstance(data.get(key), np.ndarray) and data[key].ndim for key in wanted):
        raise DatasetError(f"{place}: not a dictionary of the arrays {', '.join(wanted)}")
    steps = data["action"].size
    for key, length in zip(wanted, (steps + 1, steps, steps + 1, steps), strict=True):
        if len(data[key]) != length:
            raise DatasetError(
                f"{place}: {key} has {len(data[key])} rows, but {steps} actions need {length}"
            )
    if not steps:
        raise DatasetError(f"{place}: the episode has no steps")
    to_go = data["rtg"].astype(np.float64).reshape(-1)
    terminated = check_ends(data["done"], f"{place}: done")
    return Episode(
        observations=data["obs"][:-1].astype(np.float32),
        actions=data["action"].reshape(-1),
        rewards=to_go[:-1] - to_go[1:],
        terminated=terminated,
        truncated=not terminated,
        last_observation=data["obs"][-1].astype(np.float32),
    )


def _array(npz: NpzFile, key: str) -> Array:
    if key not in npz.keys:
        raise DatasetError(f"{npz.path}: there is no key '{key}'; the file has {sorted(npz.keys)}")
    return npz.array(key, _MOST_ROWS, _LARGEST_ROW, "one episode")


def _actions(npz: NpzFile) -> Array:
    """`(T,)` indices or `(T, A)` numbers; a column of indices becomes flat."""
    actions = _array(npz, "action")
    flat = actions.ndim == 2 and actions.shape[1] == 1 and actions.dtype.kind in "iub"
    return actions[:, 0] if flat else actions


def _numbers(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "b" else array


def _pixels(array: Array) -> Array:
    """Pictures that were divided by 255, as the bytes that they were; all else as it is."""
    if array.ndim != 4 or array.dtype.kind != "f" or not array.size:
        return array
    pixels = array * 255
    whole = np.round(pixels)
    exact = np.abs(pixels - whole).max() < 1e-2 and whole.min() >= 0 and whole.max() <= 255
    return whole.astype(np.uint8) if exact else array


def _infer(episode: Episode, actions: gymnasium.Space[Any]) -> EnvironmentSpec:
    """The environment of a folder: known by its pictures, or as its first episode and actions."""
    seen = episode.observations
    if isinstance(seen, dict):
        boxes: dict[str, gymnasium.Space[Any]] = {
            key: observation_box(array.shape[1:], array.dtype) for key, array in seen.items()
        }
        return EnvironmentSpec("rate-data", spaces.Dict(boxes), actions, UNKNOWN_RETURN)
    known = _BY_SHAPE.get(seen.shape[1:]) if seen.dtype == np.uint8 else None
    if known is not None:
        return known()
    box = observation_box(seen.shape[1:], seen.dtype)
    return EnvironmentSpec("rate-data", box, actions, UNKNOWN_RETURN)
