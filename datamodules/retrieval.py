"""Optimal policies for Action-Associative Retrieval, for single episodes and for batches."""

from __future__ import annotations

from typing import Any

import gymnasium

from datamodules.collector import NoisyExpert
from rate.envs.retrieval import STAY, Retrieval
from rate.hashing import hash_counter

# Out of reach of the counters that the environment uses.
_FIRST_ACTION_COUNTER = (1 << 62) + 4


def first_action(seed: int) -> int:
    """Returns the expert's first action in the episode of a seed: 0 or 1, evenly over seeds."""
    return hash_counter(seed, _FIRST_ACTION_COUNTER) & 1


class RetrievalExpert(NoisyExpert[Retrieval]):
    """Takes the first action of its seed, stays, and repeats the action at the flag.

    Args:
        noise: Probability of a random action during the delay, where actions have no effect: a
            distraction for who learns from it, as the first action has to be told from later ones.

    Raises:
        ValueError: If `noise` is no probability.
    """

    plays = Retrieval

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        super().reset(env, seed)
        self._first = first_action(seed)

    def act(self) -> int:
        """Returns the next action."""
        if self._env.time == 0 or self._env.flag:
            return self._first
        if self._random.random() < self._noise:
            return int(self._random.integers(3))
        return STAY
