"""Experts of environments that tell an expert's action in their state."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from datamodules.collector import probability
from rate.envs.tasks.key_to_door import KeyToDoor


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


class KeyToDoorExpert(OracleExpert):
    """An expert of Key-to-Door that does not look for the key in a share of the episodes.

    It then acts at random in the first phase, and seldom has the key. Imitation of an expert that
    always has it would succeed without memory and without regard to returns.

    Args:
        noise: Probability that an episode is such a one.
    """

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Starts the episode that `env` was reset to; `seed` decides whether it looks for the key.

        Raises:
            TypeError: If the environment is not Key-to-Door.
        """
        if not isinstance(env.unwrapped, KeyToDoor):
            raise TypeError(f"the expert plays Key-to-Door, not {type(env.unwrapped).__name__}")
        super().reset(env, seed)
        self._ignores = self._random.random() < self._noise

    def act(self) -> int:
        """Returns the next action."""
        if self._ignores and self._env.in_first_phase:
            return int(self._random.choice(self._actions))
        return int(self._env.oracle_action)
