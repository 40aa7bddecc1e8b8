"""Rollout results: the episode of each row, and returns, lengths and outcomes of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rate.envs.outcomes import SUCCESS, outcomes_in
from rate.errors import UserError

if TYPE_CHECKING:
    from rate.policy import Policy

MOST_FAILURES = 5  # of an episode, which is then left out of the scores
_ROUNDING = 1e-5  # relative tolerance of the range: data store returns-to-go as float32


@dataclass(frozen=True)
class RolloutResult:
    """Results of a rollout, per episode.

    Attributes:
        returns: `(E,)` float64, undiscounted sums of rewards. Not finite if a reward or an
            observation was not; the episode was ended there.
        lengths: `(E,)` int64, the number of actions.
        outcomes: The numbers in the environment's info at the end, `(E,)` float64 by name, NaN
            where they are missing; `success` is 0 then.
        outside: `(E,)` int64, the number of steps whose return-to-go was outside the range of the
            training data; None if that range is not known.
        first_outside: `(E,)` int64, the first such step, counted from 0; -1 if there is none.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    outcomes: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    outside: NDArray[np.int64] | None = None
    first_outside: NDArray[np.int64] | None = None

    @classmethod
    def interleaved(cls, parts: Sequence[RolloutResult]) -> RolloutResult:
        """Returns the episodes of several rollouts: part `i` of `n` has those `i`, `i + n`, ..."""
        count = sum(len(part.returns) for part in parts)

        def together(arrays: Sequence[Any], unknown: float = 0) -> NDArray[Any]:
            whole = np.full(count, unknown, next(a.dtype for a in arrays if a is not None))
            for first, array in enumerate(arrays):
                if array is not None:
                    whole[first :: len(parts)] = array
            return whole

        names = {name: None for part in parts for name in part.outcomes}
        outcomes = {
            name: together([p.outcomes.get(name) for p in parts], _unknown(name)) for name in names
        }
        returns, lengths = (
            together([getattr(p, n) for p in parts]) for n in ("returns", "lengths")
        )
        if parts[0].outside is None:
            return cls(returns, lengths, outcomes)
        counts = (together([getattr(p, n) for p in parts]) for n in ("outside", "first_outside"))
        return cls(returns, lengths, outcomes, *counts)


def _unknown(name: str) -> float:
    """Returns the outcome of an episode whose environment does not report it."""
    return 0.0 if name == SUCCESS else np.nan


class Record:
    """Results of a running rollout.

    Args:
        seeds: The seeds of the episodes.
        trained_range: Minimum and maximum return-to-go of the training data, to count steps outside
            of it; None counts none.
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
        self.failures = np.zeros_like(self.lengths)
        self.reason, self._has_succeeded = "", False
        self._next = 0

    def fail(self, episodes: NDArray[np.int64], why: str) -> None:
        """Count a failure of episodes, which begin again.

        Raises:
            UserError: If one has failed too often, and none has ended well: nothing can be scored.
        """
        self.failures[episodes] += 1
        self.reason = why
        if not self._has_succeeded and (self.failures > MOST_FAILURES).any():
            raise UserError(f"No episode can be played: {why}")

    def is_given_up(self, episodes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which episodes have failed too often to be played again."""
        given_up: NDArray[np.bool_] = self.failures[episodes] > MOST_FAILURES
        return given_up

    def result(self) -> RolloutResult:
        counts = () if self.trained_range is None else (self.outside, self.first_outside)
        return RolloutResult(self.returns, self.lengths, self.outcomes, *counts)

    @property
    def left(self) -> int:
        """The number of episodes that have not begun."""
        return len(self.seeds) - self._next

    def take(self, count: int) -> NDArray[np.int64]:
        """Begin up to `count` episodes; returns their numbers."""
        taken = np.arange(self._next, min(self._next + count, len(self.seeds)))
        self._next += len(taken)
        self.under_way[taken] = True
        return taken

    def note(
        self, episodes: NDArray[np.int64], rows: NDArray[np.bool_], info: dict[str, Any]
    ) -> None:
        """Record the ends of episodes in rows `(N,)` bool, with their outcomes in `info`."""
        self.under_way[episodes] = False
        self._has_succeeded |= bool(np.isfinite(self.returns[episodes]).any())
        for name, (numbers, is_known) in outcomes_in(info, rows).items():
            outcome = self.outcomes.setdefault(name, np.full(len(self.seeds), _unknown(name)))
            outcome[episodes[is_known]] = numbers[is_known]

    def note_returns_to_go(
        self, episodes: NDArray[np.int64], returns_to_go: NDArray[np.float64]
    ) -> None:
        """Count the next steps whose return-to-go is outside the range of the training data.

        Args:
            episodes: `(n,)` the episodes' numbers.
            returns_to_go: `(n,)` the returns-to-go.
        """
        low, high = self.trained_range or (-np.inf, np.inf)
        slack = _ROUNDING * max(abs(low), abs(high))
        outside = episodes[(returns_to_go < low - slack) | (returns_to_go > high + slack)]
        self.outside[outside] += 1
        new = outside[self.first_outside[outside] < 0]
        self.first_outside[new] = self.lengths[new]

    def forget(self, episodes: NDArray[np.int64]) -> None:
        """Reset the counts of episodes that begin again."""
        self.returns[episodes], self.lengths[episodes] = 0.0, 0
        self.outside[episodes], self.first_outside[episodes] = 0, -1

    def progress(self) -> tuple[int, int]:
        """Returns the number of ended episodes, and the steps of the running ones."""
        running = int(np.count_nonzero(self.under_way))
        return self._next - running, int(self.lengths[self.under_way].sum())


class Rows:
    """Maps the rows of a vector environment to the episodes they play.

    Args:
        num_envs: The number `N` of rows.
        record: The episodes. Rows without one repeat the last one, which does not count.
        refill: Whether a row that has ended begins the next episode.

    Attributes:
        episode: `(N,)` int64, the number of each row's episode.
        running: `(N,)` bool, the rows whose episode has not ended.
        not_finite: `(N,)` bool, the running rows with a reward or observation that was not finite.
    """

    def __init__(self, num_envs: int, record: Record, refill: bool = True) -> None:
        self.record, self.refill = record, refill
        taken = record.take(num_envs)
        self.episode = np.full(num_envs, taken[-1] if len(taken) else 0)
        self.episode[: len(taken)] = taken
        self.running = np.arange(num_envs) < len(taken)
        self.not_finite = np.zeros(num_envs, dtype=bool)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the rows' episodes."""
        return [int(self.record.seeds[i]) for i in self.episode.tolist()]

    def add(self, rewards: NDArray[Any], restarted: NDArray[Any]) -> None:
        """Count a step. A row whose simulator was restarted begins its episode again."""
        died = self.running & restarted
        if died.any():
            self.record.fail(self.episode[died], "Its simulator died each time.")
        played = self.running & ~restarted
        self.record.returns[self.episode[played]] += rewards[played]
        self.record.lengths[self.episode[played]] += 1
        self.not_finite |= played & ~np.isfinite(rewards)
        self.forget(restarted)
        self.not_finite |= died & self.record.is_given_up(self.episode)

    def forget(self, restarted: NDArray[Any]) -> None:
        """Reset the counts of the episodes in rows that begin again."""
        self.record.forget(self.episode[self.running & restarted])
        self.not_finite &= ~restarted

    def without_nan(self, observations: Any) -> Any:
        """Returns observations `(N, *obs)` with 0 where they are not finite; marks the rows."""
        if isinstance(observations, dict):
            return {key: self.without_nan(part) for key, part in observations.items()}
        array = np.asarray(observations)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            return observations
        finite = np.isfinite(array)
        self.not_finite |= self.running & ~finite.all(axis=tuple(range(1, array.ndim)))
        return np.where(finite, array, np.zeros((), array.dtype))

    def note_returns_to_go(self, policy: Policy) -> None:
        """Count rows whose return-to-go is outside the range of the training data."""
        if self.record.trained_range is not None:
            returns_to_go = policy.returns_to_go[:, 0].numpy()[self.running]
            self.record.note_returns_to_go(self.episode[self.running], returns_to_go)

    def end(self, ended: NDArray[np.bool_], info: dict[str, Any]) -> NDArray[np.bool_]:
        """Record the ends of rows; returns the rows that begin an episode, `(N,)` bool.

        A row whose episode has ended with a number that is not finite begins it again.
        """
        broken = ended & self.not_finite
        self.not_finite &= ~ended
        if self.refill:
            self.record.failures[self.episode[broken]] += 1
        repeated = broken & ~self.record.is_given_up(self.episode) & self.refill
        self.record.forget(self.episode[repeated])
        self.record.returns[self.episode[broken & ~repeated]] = np.nan
        ended = ended & ~repeated
        self.record.note(self.episode[ended], ended, info)
        taken = self.record.take(int(np.count_nonzero(ended)) if self.refill else 0)
        rows = np.flatnonzero(ended)[: len(taken)]
        self.episode[rows] = taken
        again = repeated.copy()
        again[rows] = True
        self.running = (self.running & ~ended) | again
        return again

    def restart(self) -> None:
        """Begin the episodes of all rows again, except those that have failed too often."""
        self.record.forget(self.episode[self.running])
        self.not_finite = self.running & self.record.is_given_up(self.episode)
        self.end(self.not_finite.copy(), {})
