"""The vector environment of a memory task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rate.envs.autoreset import WAITING
from rate.envs.row_seeds import row_seeds
from rate.envs.tasks.rows import Array, Observation, Rows, State

if TYPE_CHECKING:
    from rate.envs.tasks.base import Task


class TaskVector(VectorEnv[Observation, npt.NDArray[np.int64], Array]):
    """A vector environment of `N` rows; each equals the task's environment of its seed to the bit.

    There is no autoreset. A finished row keeps its last observation and flags, with reward 0, until
    `reset`; `reset(options={"reset_mask": mask})` with `mask (N,)` bool resets some rows only.

    Args:
        task: The task with its settings.
        num_envs: The number `N` of rows.

    Raises:
        ValueError: If there are no rows.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": [],
        **WAITING,
    }

    def __init__(self, task: Task[Any], num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; at least one environment is needed")
        self.num_envs, self.task = num_envs, task
        self.single_observation_space = task.observation_space
        self.single_action_space = task.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rows, self._all = Rows(task, num_envs), np.ones(num_envs, dtype=bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts episodes; an integer `seed` gives row `i` the seed `seed + i`.

        Raises:
            ConfigError: If an option is unknown, or its value is impossible.
            ValueError: If the number of seeds or the shape of `reset_mask` is not that of the rows.
        """
        fixed = dict(options or {})
        mask = np.asarray(fixed.pop("reset_mask", self._all), dtype=bool)
        if mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {mask.shape}; expected ({self.num_envs},)")
        self._rows.reset(row_seeds(self, seed)[mask], mask, fixed)
        return self._rows.observe(), self._info()

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Takes one action in each unfinished row; `actions` is `(N,)`."""
        actions, last = np.asarray(actions), self.task.num_actions - 1
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() > last:
            raise ValueError(
                f"{type(self.task).__name__} actions: expected ({self.num_envs},) integers from 0 "
                f"to {last}, got shape {actions.shape} with values from {actions.min()} to "
                f"{actions.max()}"
            )
        rewards = self._rows.step(actions)
        flags = self._rows.terminated.copy(), self._rows.truncated.copy()
        return self._rows.observe(), rewards, *flags, self._info()

    @property
    def state(self) -> State:
        """The state of all rows."""
        return self._rows.state

    def _info(self) -> dict[str, Any]:
        return {
            "success": self._rows.success.copy(),
            "_success": self._all.copy(),
            "oracle_action": self._rows.oracle(),
            "_oracle_action": self._all.copy(),
        }
