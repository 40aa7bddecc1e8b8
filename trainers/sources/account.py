"""What a collector has collected: steps, and the results of the newest episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rate.envs.outcomes import SUCCESS, outcomes_in

_NEWEST = 100  # episodes that the means are over


class Account:
    """Counts steps and episodes, and averages the newest 100 episodes.

    Args:
        num_envs: Rows.

    Attributes:
        steps: Environment steps.
        episodes: Episodes that have ended.
    """

    def __init__(self, num_envs: int) -> None:
        self.steps = self.episodes = 0
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self._newest: list[list[float]] = []  # return, length, success of episodes

    def add(
        self,
        rewards: NDArray[Any],
        going: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        lost: NDArray[np.bool_],
        info: dict[str, Any],
    ) -> None:
        """Counts a step of the rows that are `going`; arrays `(N,)`."""
        self.steps += int(going.sum())
        self._returns += rewards
        self._lengths += going
        if ended.any():
            success = np.full(len(ended), np.nan)
            if SUCCESS in (found := outcomes_in(info, ended)):
                numbers, known = found[SUCCESS]
                success[ended] = np.where(known, numbers, np.nan)
            results = np.stack((self._returns, self._lengths, success), 1)[ended]
            self.episodes += len(results)
            self._newest = [*self._newest, *results.tolist()][-_NEWEST:]
        over = ended | lost
        self._returns[over], self._lengths[over] = 0.0, 0

    def metrics(self) -> dict[str, float]:
        """Returns the counts, and the means over the newest episodes, if one has ended."""
        found = {"steps": float(self.steps), "episodes": float(self.episodes)}
        if self._newest:
            table = np.array(self._newest)
            found |= {"return": float(table[:, 0].mean()), "length": float(table[:, 1].mean())}
            if not np.isnan(table[:, 2]).any():
                found["success"] = float(table[:, 2].mean())
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "episodes": self.episodes,
            "returns": self._returns.tolist(),
            "lengths": self._lengths.tolist(),
            "newest": self._newest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.episodes = state["steps"], state["episodes"]
        self._returns, self._lengths = np.array(state["returns"]), np.array(state["lengths"])
        self._newest = [list(each) for each in state["newest"]]
