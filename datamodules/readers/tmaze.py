"""The RATE paper's T-Maze: a pickled dictionary of episodes.

An episode has `obs (T + 1, 4)`, `action (T,)`, `rtg (T + 1,)` and `done (T,)`; a reward is the
difference of two returns-to-go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import DatasetError, Episode
from datamodules.readers.end_kinds import check_ends
from datamodules.readers.pickles import first_texts, load_pickle
from datamodules.readers.trajectories import is_pickle
from datamodules.source import OnBad, Source
from rate.envs.tmaze import TMAZE_SPEC

_KEYS = ("obs", "action", "rtg", "done")
_FIRST_OPCODES = 400  # of a pickle: those of its first episode


def is_tmaze_pickle(path: Path) -> bool:
    """Whether a file is a pickle whose first texts are the keys of a T-Maze episode."""
    try:
        return is_pickle(path) and first_texts(path, _FIRST_OPCODES) >= set(_KEYS)
    except DatasetError:
        return False


def open_tmaze_pickle(path: Path) -> Source:
    """Opens a T-Maze pickle as a source. It is loaded as a whole.

    Raises:
        DatasetError: If it is damaged.
    """
    loaded = load_pickle(path)
    read = partial(_read, path, list(loaded.values()) if isinstance(loaded, dict) else loaded)
    bad: list[DatasetError] = []
    lengths = [len(episode) for episode in read(0, bad.append)]
    return Source(
        format="rate-tmaze",
        path=path,
        files=(path,),
        spec=TMAZE_SPEC,
        read=read,
        num_episodes=len(lengths) + len(bad),
        num_steps=sum(lengths),
    )


def _read(path: Path, items: Sequence[Any], start: int, on_bad: OnBad) -> Iterator[Episode]:
    for number, item in enumerate(items[start:], start):
        try:
            episode = _tmaze_episode(item, f"{path}, episode {number}")
        except DatasetError as error:
            on_bad(error)
        else:
            yield episode


def _tmaze_episode(item: Any, place: str) -> Episode:
    data = item if isinstance(item, dict) else {}
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
