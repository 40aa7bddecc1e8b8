"""The expert of environments that tell an expert's action in their state."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from datamodules.collector import probability


class OracleExpert:
    """Takes the action `oracle_action` of the environment, which knows its whole state.

    Args:
        noise: Probability of a random action instead. Where a mistake cannot be undone, the data
            are then of mixed quality.

    Raises:
        ValueError: If `noise` is no probability.
    """

    def __init__(self, noise: float = 0.0) -> None:
        self._noise = probability(noise)

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Starts the episode that `env` was reset to; `seed` also decides the random actions.

        Raises:
            TypeError: If the environment does not tell an expert's action.
        """
        self._env: Any = env.unwrapped
        space: Any = env.action_space
        if not hasattr(self._env, "oracle_action"):
            raise TypeError(f"{type(self._env).__name__} has no attribute oracle_action")
        self._random = np.random.default_rng([seed, 1])
        self._actions = np.arange(space.n)

    def act(self) -> int:
        """Returns the next action."""
        if self._random.random() < self._noise:
            return int(self._random.choice(self._actions))
        return int(self._env.oracle_action)
