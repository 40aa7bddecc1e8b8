"""Bits: several bits are shown one a step, and after a delay asked for by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, EpisodeSampler, Outcome, State, Task, TaskOptions


@dataclass(frozen=True)
class BitsOptions(TaskOptions):
    """Settings of `Bits`.

    Attributes:
        num_bits: The number of bits.
        num_queries: The number of questions at the end of an episode.
    """

    num_bits: int = 3
    num_queries: int = 1

    def __post_init__(self) -> None:
        self.check_count("num_bits", 1)
        self.check_count("num_queries", 1)


class Bits(Task[BitsOptions]):
    """Bits to remember, with a delay of any length.

    An episode has `length` steps: `num_bits` that show a bit each, a delay, and `num_queries` that
    ask for one each. Observations are `(2 + num_bits,)` float32: the bit that is shown, +1 or -1;
    whether a bit is asked for; and the index of either, one-hot. All are 0 in the delay. Actions
    are 0 and 1; those that answer a question with the bit earn 1, all others 0. Success is that of
    all questions. A policy without memory answers half of them.

    Reset options: `bits`, `(num_bits,)` of 0 and 1; `queries`, `(num_queries,)` indices.
    """

    options_class = BitsOptions
    default_length: ClassVar[int] = 90
    success_without_memory = 1 / 2
    varies_length = True
    num_actions = 2

    @property
    def shortest(self) -> int:
        return self.options.num_bits + self.options.num_queries

    @property
    def best_return(self) -> float:
        return float(self.options.num_queries)

    @property
    def own_space(self) -> spaces.Box:
        low = np.zeros(2 + self.options.num_bits, dtype=np.float32)
        low[0] = -1
        return spaces.Box(low, np.ones_like(low), dtype=np.float32)

    @property
    def privileged_space(self) -> spaces.Box:
        return spaces.Box(0, 1, (self.options.num_bits,), np.float32)

    def steps(self, length: Any) -> Any:
        return length

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        count = self.options.num_bits
        return {
            "bits": sampler.between("bits", 0, 1, (count,)),
            "queries": sampler.between("queries", 0, count - 1, (self.options.num_queries,)),
            "errors": np.zeros(len(length), dtype=np.int64),
        }

    def observe(self, state: State) -> Array:
        time, count = state["time"], self.options.num_bits
        is_shown, is_asked = time < count, self._is_asked(state)
        index = np.where(is_shown, time, self._query(state))
        seen = np.zeros((len(time), *self.own_shape), dtype=np.float32)
        seen[:, 0] = (2 * self._bit(state, index) - 1) * is_shown
        seen[:, 1] = is_asked
        seen[:, 2:] = (index[:, None] == np.arange(count)) & (is_shown | is_asked)[:, None]
        return seen

    def reveal(self, state: State) -> Array:
        return state["bits"].astype(np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        is_asked = self._is_asked(state)
        right = is_asked & (actions == self._bit(state, self._query(state)))
        state["errors"] = state["errors"] + (is_asked & ~right)
        last = state["time"] == state["length"] - 1
        return Outcome(right.astype(np.float64), last, last & (state["errors"] == 0))

    def oracle(self, state: State) -> Array:
        """Returns the answers to questions, and 0 before, so that actions do not tell the bits."""
        return np.where(self._is_asked(state), self._bit(state, self._query(state)), 0)

    def _asked_before(self, state: State) -> Array:
        """Returns the number of past questions `(n,)`; negative before the first."""
        number: Array = state["time"] - (state["length"] - self.options.num_queries)
        return number

    def _is_asked(self, state: State) -> Array:
        number = self._asked_before(state)
        is_asked: Array = (number >= 0) & (number < self.options.num_queries)
        return is_asked

    def _query(self, state: State) -> Array:
        """Returns the index of the bit that is asked for, `(n,)`; any where none is."""
        number = np.clip(self._asked_before(state), 0, self.options.num_queries - 1)
        query: Array = state["queries"][np.arange(len(number)), number]
        return query

    def _bit(self, state: State, index: Array) -> Array:
        bit: Array = state["bits"][np.arange(len(index)), index]
        return bit
