"""Plays MuJoCo tasks and records steps in D4RL's columns and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.disk_errors import require_room
from datamodules.episodes import Array
from rate.envs.mujoco import PUBLISHED_LENGTH, Mujoco, MujocoOptions
from rate.files import atomic_path

Columns = dict[str, Array]  # what D4RL keeps of each step, by its name there
Act = Callable[[Array], tuple[Array, Array]]  # observations to actions and log-probabilities

_DTYPES = {"terminals": np.bool_, "timeouts": np.bool_, "infos/qpos": np.float64}
_DTYPES["infos/qvel"] = np.float64


class Rows:
    """Parallel environments whose steps are recorded in D4RL's columns.

    Args:
        options: The task.
        count: The number of environments.
    """

    def __init__(self, options: MujocoOptions, count: int) -> None:
        self._envs = [Mujoco(options) for _ in range(count)]
        shape = self._envs[0].observation_space.shape or ()
        self.observations: Array = np.zeros((count, *shape), dtype=np.float32)

    def reset(self, row: int, seed: int) -> None:
        """Starts an episode in a row."""
        self.observations[row], _ = self._envs[row].reset(seed=seed)

    def step(self, act: Act) -> Columns:
        """Takes one action in each row; a row whose episode has ended stays as it is.

        Returns:
            `(N, ...)` by column.
        """
        before = self.observations
        actions, log_probs = act(before)
        states = [env.state for env in self._envs]
        played = [env.step(action) for env, action in zip(self._envs, actions, strict=True)]
        self.observations = np.stack([step[0] for step in played])
        columns = {
            "observations": before,
            "actions": actions,
            "rewards": [step[1] for step in played],
            "next_observations": self.observations,
            "terminals": [step[2] for step in played],
            "timeouts": [step[3] for step in played],
            "infos/action_log_probs": log_probs,
            "infos/qpos": [qpos for qpos, _ in states],
            "infos/qvel": [qvel for _, qvel in states],
        }
        return {n: np.array(c, dtype=_DTYPES.get(n, np.float32)) for n, c in columns.items()}

    def close(self) -> None:
        for env in self._envs:
            env.close()


def play(act: Act, rows: Rows, seeds: Sequence[int]) -> list[Columns]:
    """Plays an episode for each seed, at most as many as there are rows."""
    for row, seed in enumerate(seeds):
        rows.reset(row, seed)
    for row in range(len(seeds), len(rows.observations)):
        rows.reset(row, seeds[0])  # what it does is not looked at
    steps = []
    running = np.arange(len(rows.observations)) < len(seeds)
    while running.any():
        steps.append(rows.step(act))
        running &= ~(steps[-1]["terminals"] | steps[-1]["timeouts"])
    return [next(split(stack(steps), row)) for row in range(len(seeds))]


def stack(steps: Sequence[Columns]) -> Columns:
    """Stacks steps to `(T, N, ...)` by column."""
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}


def split(columns: Columns, row: int) -> Iterator[Columns]:
    """Yields the episodes with an end in a row of `(T, N, ...)` columns, `(T', ...)` each."""
    ends = np.flatnonzero(columns["terminals"][:, row] | columns["timeouts"][:, row]) + 1
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        yield {name: column[start:end, row] for name, column in columns.items()}


def write_d4rl(path: Path, episodes: Iterable[Columns], metadata: dict[str, Any]) -> None:
    """Writes a file in D4RL's format, atomically.

    Args:
        path: The file.
        episodes: Their columns; they follow each other in the file.
        metadata: Numbers, texts and arrays by name, for the group `metadata`.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft, ExitStack() as stack:
        require_room(draft, 0)
        file = stack.enter_context(h5py.File(draft, "x"))
        for episode in episodes:
            require_room(draft, sum(column.nbytes for column in episode.values()))
            for name, column in episode.items():
                _append(file, name, column)
        for name, value in metadata.items():
            file[f"metadata/{name}"] = value


def _append(file: h5py.File, name: str, column: Array) -> None:
    """Appends rows to a column of a file, which is created if it does not exist."""
    if name not in file:
        chunk = (PUBLISHED_LENGTH, *column.shape[1:])
        limit = (None, *column.shape[1:])
        file.create_dataset(name, data=column, maxshape=limit, chunks=chunk, compression="gzip")
        return
    data = file[name]
    data.resize(len(data) + len(column), axis=0)
    data[-len(column) :] = column
