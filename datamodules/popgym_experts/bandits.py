"""An expert for multi-armed bandits."""

from __future__ import annotations

from typing import Any

import numpy as np

_DEVIATIONS = 2.0


class MultiarmedBandit:
    """Pulls the arm with the highest upper bound of its payoff (Bayes-UCB, for Beta(1, 1)).

    The bound is the posterior's mean and some of its standard deviations, fewer as the end nears.
    """

    def __init__(self, task: Any) -> None:
        self._steps = task.max_episode_length
        self._paid, self._not = np.ones(task.num_bandits), np.ones(task.num_bandits)
        self._time, self._last = 0, 0

    def act(self, seen: int) -> int:
        if self._time:
            (self._paid if seen else self._not)[self._last] += 1
        pulls = self._paid + self._not
        mean = self._paid / pulls
        deviation = np.sqrt(mean * (1 - mean) / (pulls + 1))
        left = 1 - self._time / self._steps
        self._time += 1
        self._last = int(np.argmax(mean + _DEVIATIONS * left * deviation))
        return self._last
