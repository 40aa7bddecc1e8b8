"""The state of N rows of a memory task, and how they are reset and stepped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rate.envs.tasks.sampling import EpisodeSampler

if TYPE_CHECKING:
    from rate.envs.tasks.base import Task

Array = npt.NDArray[Any]
Observation = Any  # an array, or a dictionary of arrays
State = dict[str, Array]
"""Arrays with a first axis of rows. Each has `seed` (uint64), `length` and `time`, `(n,)`."""


class Outcome(NamedTuple):
    """What an action does in `n` rows: reward `(n,)`, end and success `(n,)` bool."""

    reward: Array
    terminated: Array
    success: Array


class Rows:
    """The rows of an environment of a task; finished ones keep their state.

    Args:
        task: The task with its settings.
        count: N.
        single: Whether it is the one row of a single environment.
    """

    def __init__(self, task: Task[Any], count: int, *, single: bool = False) -> None:
        self._task, self._count = task, count
        self._num_rows = None if single else count
        self.terminated, self.truncated, self.success = np.zeros((3, count), dtype=bool)
        self.state: State = {}
        everywhere = np.ones(count, dtype=bool)
        self.reset(np.zeros(count, dtype=np.uint64), everywhere, {})
        self.terminated[:] = True  # until the first reset by the user

    @property
    def ended(self) -> Array:
        ended: Array = self.terminated | self.truncated
        return ended

    def reset(self, seeds: Array, mask: Array, fixed: Mapping[str, Any]) -> None:
        """Start episodes in the rows of `mask` `(N,)` bool; `seeds` has one for each of them."""
        rows = np.flatnonzero(mask)
        sampler = EpisodeSampler(seeds, fixed, rows, self._num_rows)
        length = sampler.between("length", *self._task.lengths)
        time = np.zeros(len(rows), dtype=np.int64)
        drawn = self._task.sample(sampler, length)
        sampler.check_names()
        news = {"seed": seeds, "length": length, "time": time, **drawn}
        for key, value in news.items():
            whole = np.empty((self._count, *value.shape[1:]), value.dtype)
            whole[...] = self.state.get(key, 0)
            whole[rows] = value
            self._keep(key, whole)
        for flags in (self.terminated, self.truncated, self.success):
            flags[rows] = False

    def step(self, actions: Array) -> Array:
        """Take an action `(N,)` in each running row; returns the rewards `(N,)`."""
        running = ~self.ended
        state = dict(self.state)
        reward, terminated, success = self._task.advance(state, actions)
        state["time"] = state["time"] + 1
        for key, value in state.items():
            if value is not self.state[key]:
                shape = (-1, *[1] * (value.ndim - 1))
                self._keep(key, np.where(running.reshape(shape), value, self.state[key]))
        over = self.state["time"] >= self._task.steps(self.state["length"])
        self.terminated = self.terminated | (running & terminated)
        self.truncated = self.truncated | (running & ~terminated & over)
        self.success = np.where(running, success, self.success)
        return np.where(running, reward, 0.0)

    def observe(self) -> Observation:
        """Returns the observations of all rows."""
        task, own = self._task, self._task.observe(self.state)
        if not task.options.privileged:
            return own
        return {"privileged": task.reveal(self.state), task.observation_key: own}

    def oracle(self) -> Array:
        """Returns the expert's actions `(N,)`; 0 in finished rows."""
        actions: Array = np.where(self.ended, 0, self._task.oracle(self.state))
        return actions

    def _keep(self, key: str, value: Array) -> None:
        value.flags.writeable = False  # a task that wrote into it would change finished rows
        self.state[key] = value
