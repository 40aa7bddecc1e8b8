"""Book-keeping of rollouts: which row plays which episode, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RolloutResult:
    """A number of episodes.

    Attributes:
        returns: `(E,)` float64, undiscounted sums of rewards.
        lengths: `(E,)` int64, actions taken.
        outcomes: What the environment said of each episode at its end, `(E,)` float64 by name; for
            example `success`. An episode that was cut has 0.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    outcomes: dict[str, NDArray[np.float64]] = field(default_factory=dict)


class Record:
    """What has become of a number of episodes.

    Args:
        seeds: Of the episodes.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds, count = seeds, len(seeds)
        self.returns, self.lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
        self.outcomes: dict[str, NDArray[np.float64]] = {}
        self.under_way = np.zeros(count, dtype=bool)
        self._next = 0

    def result(self) -> RolloutResult:
        return RolloutResult(self.returns, self.lengths, self.outcomes)

    def take(self, count: int) -> NDArray[np.int64]:
        """The numbers of the next episodes, up to so many: they are under way from now on."""
        taken = np.arange(self._next, min(self._next + count, len(self.seeds)))
        self._next += len(taken)
        self.under_way[taken] = True
        return taken

    def note(
        self, episodes: NDArray[np.int64], rows: NDArray[np.bool_], info: dict[str, Any]
    ) -> None:
        """These episodes have ended in these rows `(N,)` bool, of which `info` tells."""
        self.under_way[episodes] = False
        for name, values in info.items():
            if name.startswith("_") or np.asarray(values).dtype.kind not in "biuf":
                continue
            known = self.outcomes.setdefault(name, np.zeros(len(self.seeds)))
            known[episodes] = np.asarray(values, dtype=np.float64)[rows]

    def progress(self) -> tuple[int, int]:
        """Episodes that have ended, and the steps of those that are under way."""
        running = int(np.count_nonzero(self.under_way))
        return self._next - running, int(self.lengths[self.under_way].sum())


class Rows:
    """The rows of a vector environment, and the episode that each of them plays.

    Args:
        num_envs: The number `N` of rows, no more than there are episodes left.
        record: Gives out the episodes.
    """

    def __init__(self, num_envs: int, record: Record) -> None:
        self.record, self.episode = record, record.take(num_envs)
        self.running = np.ones(num_envs, dtype=bool)

    @property
    def seeds(self) -> list[int]:
        """Of the rows' episodes."""
        return [int(self.record.seeds[i]) for i in self.episode.tolist()]

    def add(self, rewards: NDArray[Any], restarted: NDArray[Any]) -> None:
        """Count a step. A row whose simulator was restarted begins its episode again."""
        played = self.episode[self.running & ~restarted]
        self.record.returns[played] += rewards[self.running & ~restarted]
        self.record.lengths[played] += 1
        self.forget(restarted)

    def forget(self, restarted: NDArray[Any]) -> None:
        """Count nothing of the episodes under way in these rows: they begin again."""
        again = self.episode[self.running & restarted]
        self.record.returns[again], self.record.lengths[again] = 0.0, 0

    def end(self, ended: NDArray[np.bool_], info: dict[str, Any]) -> NDArray[np.bool_]:
        """Note how rows ended; returns those that go on with another episode, `(N,)` bool."""
        self.record.note(self.episode[ended], ended, info)
        taken = self.record.take(int(np.count_nonzero(ended)))
        rows = np.flatnonzero(ended)[: len(taken)]
        self.episode[rows] = taken
        again = np.zeros_like(ended)
        again[rows] = True
        self.running = (self.running & ~ended) | again
        return again
