"""Book-keeping of rollouts: which row plays which episode, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rate.envs.outcomes import SUCCESS, outcomes_in

if TYPE_CHECKING:
    from rate.policy import Policy

_ROUNDING = 1e-5  # of the range's ends: data keep returns-to-go as float32


@dataclass(frozen=True)
class RolloutResult:
    """A number of episodes.

    Attributes:
        returns: `(E,)` float64, undiscounted sums of rewards. Not finite where a reward or an
            observation was not; the episode was ended there.
        lengths: `(E,)` int64, actions taken.
        outcomes: What the environment said of each episode at its end, `(E,)` float64 by name, NaN
            where it did not say; `success` is 0 then.
        outside: `(E,)` int64, steps at which the return-to-go that the model was given lay outside
            the range of the training data; None if that is not known.
        first_outside: `(E,)` int64, the first such step, counted from 0; -1 where there is none.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    outcomes: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    outside: NDArray[np.int64] | None = None
    first_outside: NDArray[np.int64] | None = None


class Record:
    """What has become of a number of episodes.

    Args:
        seeds: Of the episodes.
        trained_range: The least and the greatest return-to-go of the training data, if steps
            beyond it are to be counted.
    """

    def __init__(
        self, seeds: Sequence[int], trained_range: tuple[float, float] | None = None
    ) -> None:
        self.seeds, count = seeds, len(seeds)
        self.returns, self.lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
        self.outcomes: dict[str, NDArray[np.float64]] = {}
        self.under_way = np.zeros(count, dtype=bool)
        self.trained_range = trained_range
        self.outside, self.first_outside = np.zeros_like(self.lengths), self.lengths - 1
        self._next = 0

    def result(self) -> RolloutResult:
        counts = () if self.trained_range is None else (self.outside, self.first_outside)
        return RolloutResult(self.returns, self.lengths, self.outcomes, *counts)

    @property
    def left(self) -> int:
        """How many episodes are still to be taken."""
        return len(self.seeds) - self._next

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
        for name, (told, is_known) in outcomes_in(info, rows).items():
            unknown = 0.0 if name == SUCCESS else np.nan
            outcome = self.outcomes.setdefault(name, np.full(len(self.seeds), unknown))
            outcome[episodes[is_known]] = told[is_known]

    def note_returns_to_go(self, episodes: NDArray[np.int64], asked: NDArray[np.float64]) -> None:
        """Count the steps that are about to be taken where the model is asked for the unseen.

        Args:
            episodes: `(n,)` the episodes' numbers.
            asked: `(n,)` the returns-to-go that the model was given.
        """
        low, high = self.trained_range or (-np.inf, np.inf)
        slack = _ROUNDING * max(abs(low), abs(high))
        outside = episodes[(asked < low - slack) | (asked > high + slack)]
        self.outside[outside] += 1
        new = outside[self.first_outside[outside] < 0]
        self.first_outside[new] = self.lengths[new]

    def forget(self, episodes: NDArray[np.int64]) -> None:
        """Count nothing of these episodes: they begin again."""
        self.returns[episodes], self.lengths[episodes] = 0.0, 0
        self.outside[episodes], self.first_outside[episodes] = 0, -1

    def progress(self) -> tuple[int, int]:
        """Episodes that have ended, and the steps of those that are under way."""
        running = int(np.count_nonzero(self.under_way))
        return self._next - running, int(self.lengths[self.under_way].sum())


class Rows:
    """The rows of a vector environment, and the episode that each of them plays.

    Args:
        num_envs: The number `N` of rows.
        record: Gives out the episodes. Rows for which there is none play the last one once more,
            and nobody looks.
        refill: Whether a row that has ended takes the next episode.

    Attributes:
        episode: `(N,)` int64, the number of each row's episode.
        running: `(N,)` bool, the rows whose episode has not ended.
        spoilt: `(N,)` bool, those of them in which a number was not finite.
    """

    def __init__(self, num_envs: int, record: Record, refill: bool = True) -> None:
        self.record, self.refill = record, refill
        taken = record.take(num_envs)
        self.episode = np.full(num_envs, taken[-1] if len(taken) else 0)
        self.episode[: len(taken)] = taken
        self.running = np.arange(num_envs) < len(taken)
        self.spoilt = np.zeros(num_envs, dtype=bool)

    @property
    def seeds(self) -> list[int]:
        """Of the rows' episodes."""
        return [int(self.record.seeds[i]) for i in self.episode.tolist()]

    def add(self, rewards: NDArray[Any], restarted: NDArray[Any]) -> None:
        """Count a step. A row whose simulator was restarted begins its episode again."""
        played = self.running & ~restarted
        self.record.returns[self.episode[played]] += rewards[played]
        self.record.lengths[self.episode[played]] += 1
        self.spoilt |= played & ~np.isfinite(rewards)
        self.forget(restarted)

    def forget(self, restarted: NDArray[Any]) -> None:
        """Count nothing of the episodes under way in these rows: they begin again."""
        self.record.forget(self.episode[self.running & restarted])
        self.spoilt &= ~restarted

    def without_nan(self, observations: Any) -> Any:
        """Observations `(N, *obs)` with 0 for what is not finite; it spoils the row's episode."""
        if isinstance(observations, dict):
            return {key: self.without_nan(part) for key, part in observations.items()}
        array = np.asarray(observations)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            return observations
        finite = np.isfinite(array)
        self.spoilt |= self.running & ~finite.all(axis=tuple(range(1, array.ndim)))
        return np.where(finite, array, np.zeros((), array.dtype))

    def note_returns_to_go(self, policy: Policy) -> None:
        """Count what the rows' next actions were chosen for, where it is beyond the data."""
        if self.record.trained_range is not None:
            asked = policy.returns_to_go[:, 0].numpy()[self.running]
            self.record.note_returns_to_go(self.episode[self.running], asked)

    def end(self, ended: NDArray[np.bool_], info: dict[str, Any]) -> NDArray[np.bool_]:
        """Note how rows ended; returns those that go on with another episode, `(N,)` bool."""
        self.record.returns[self.episode[ended & self.spoilt]] = np.nan
        self.spoilt &= ~ended
        self.record.note(self.episode[ended], ended, info)
        taken = self.record.take(int(np.count_nonzero(ended)) if self.refill else 0)
        rows = np.flatnonzero(ended)[: len(taken)]
        self.episode[rows] = taken
        again = np.zeros_like(ended)
        again[rows] = True
        self.running = (self.running & ~ended) | again
        return again
