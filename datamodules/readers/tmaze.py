"""The RATE paper's T-Maze: a pickled dictionary of episodes.

An episode has `obs (T + 1, 4)`, `action (T,)`, `rtg (T + 1,)` and `done (T,)`; a reward is the
difference of two returns-to-go.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import DatasetError, Episode
from datamodules.readers.end_kinds import check_ends
from datamodules.readers.pickles import read_items
from datamodules.source import OnBad, Source, refuse
from rate.envs.tmaze import TMAZE_SPEC

_KEYS = ("obs", "action", "rtg", "done")


def is_tmaze_pickle(path: Path) -> bool:
    """Whether a file is a pickled dictionary of T-Maze episodes."""
    try:
        return path.is_file() and _is_entry(next(read_items(path), None))
    except DatasetError:
        return False


def _is_entry(item: Any) -> bool:
    return isinstance(item, tuple) and isinstance(item[1], dict) and set(_KEYS) <= set(item[1])


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
    data = item[1] if _is_entry(item) else {}
    if not all(isinstance(data.get(key), np.ndarray) and data[key].ndim for key in _KEYS):
        raise DatasetError(f"{place}: not a dictionary of the arrays {', '.join(_KEYS)}")
    steps = data["action"].size
    for key, length in zip(_KEYS, (steps + 1, steps, steps + 1, steps), strict=True):
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
