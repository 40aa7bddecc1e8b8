"""The trajectory pickles of the Decision Transformer's code: a list with a dictionary an episode.

`observations (T, D)`, `actions (T, A)` or `(T,)`, `rewards (T,)`, `terminals (T,)`, and where they
are there `next_observations (T, D)`. An episode whose last terminal is false was ended by the time
limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError, Episode
from datamodules.readers.pickles import read_items
from datamodules.source import (
    UNKNOWN_RETURN,
    ActionRange,
    OnBad,
    Source,
    known_mujoco,
    observation_box,
    refuse,
)
from rate.envs.spec import EnvironmentSpec

_KEYS = ("observations", "actions", "rewards", "terminals")


def is_pickle(path: Path) -> bool:
    """Whether a path is a pickle, by its first byte or, for those of protocol 0, by its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) == b"\x80" or path.suffix in (".pkl", ".pickle", ".p")


def open_trajectories(path: Path) -> Source:
    """A file as a source. It is read once, to count and to infer the spaces.

    Raises:
        DatasetError: If the file is damaged, asks for anything but data, or has no whole episode.
    """
    actions, episodes, steps = ActionRange(), 0, 0
    shape: tuple[int, ...] | None = None
    dtype = np.dtype(np.float32)
    bad: list[DatasetError] = []
    for episode in read_trajectories(path, on_bad=bad.append):
        if not isinstance(episode.observations, dict) and shape is None:
            shape, dtype = episode.observations.shape[1:], episode.observations.dtype
        actions.see(episode.actions)
        episodes, steps = episodes + 1, steps + len(episode)
    if shape is None:
        raise bad[0] if bad else DatasetError(f"{path}: there are no episodes in the list")
    spec = EnvironmentSpec(
        "trajectories", observation_box(shape, dtype), actions.space(), UNKNOWN_RETURN
    )
    return Source(
        format="trajectories",
        path=path,
        files=(path,),
        spec=known_mujoco(spec, path.name, "v4"),
        read=partial(read_trajectories, path),
        num_episodes=episodes + len(bad),
        num_steps=steps,
    )


def read_trajectories(
    path: Path | str, start: int = 0, on_bad: OnBad = refuse
) -> Iterator[Episode]:
    """The episodes of a file, one in memory at a time.

    Args:
        path: The file. Nothing that stands in it is run; see `datamodules.readers.pickles`.
        start: The number of the first to read.
        on_bad: Told of each that cannot be used.

    Raises:
        DatasetError: If the file is damaged or asks for anything but data.
    """
    path = Path(path)
    for number, item in enumerate(read_items(path)):
        if number < start:
            continue
        try:
            episode = _episode(item, f"{path}, episode {number}")
        except DatasetError as error:
            on_bad(error)
        else:
            yield episode


def _episode(item: Any, place: str) -> Episode:
    if not isinstance(item, dict):
        raise DatasetError(
            f"{place}: not a dictionary of arrays, but of type {type(item).__name__}"
        )
    for key, value in item.items():
        if not isinstance(value, np.ndarray):
            raise DatasetError(f"{place}: '{key}' is no array, but of type {type(value).__name__}")
    for key in _KEYS:
        if key not in item:
            raise DatasetError(f"{place}: there is no '{key}'; it has {sorted(map(str, item))}")
    lengths = {key: len(array) if array.ndim else 0 for key, array in item.items()}
    steps = lengths["actions"]
    for key in (*_KEYS, *({"next_observations"} & item.keys())):
        if lengths[key] != steps:
            raise DatasetError(f"{place}: {key} has {lengths[key]} steps, but actions has {steps}")
    if not steps:
        raise DatasetError(f"{place}: the episode has no steps")
    following = item.get("next_observations")
    terminated = check_ends(item["terminals"], place)
    return Episode(
        observations=item["observations"],
        actions=item["actions"],
        rewards=item["rewards"].reshape(-1) if item["rewards"].size == steps else item["rewards"],
        terminated=terminated,
        truncated=not terminated,
        last_observation=None if following is None else following[-1],
    )


def check_ends(flags: Array, place: str) -> bool:
    """Whether the last step ends an episode.

    Raises:
        DatasetError: If another one does too, or a flag is neither 0 nor 1.
    """
    if flags.size != len(flags):
        raise DatasetError(f"{place}: the terminals have shape {flags.shape}, not (T,)")
    flags = flags.reshape(-1)
    wrong = (flags != 0) & (flags != 1)
    if wrong.any():
        step = int(np.argmax(wrong))
        raise DatasetError(f"{place}: the terminal of step {step} is {flags[step]}, not 0 or 1")
    early = np.flatnonzero(flags[:-1])
    if early.size:
        raise DatasetError(
            f"{place}: step {int(early[0])} is a terminal, but the episode goes on to step "
            f"{len(flags) - 1}"
        )
    return bool(flags[-1])
