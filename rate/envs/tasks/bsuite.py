"""The memory tasks of bsuite (Osband et al. 2020, "Behaviour Suite for Reinforcement Learning").

Bits are shown at the first two steps; at the last step one of them is to be told. `MemoryLength`
has one bit and many steps, `MemorySize` many bits and three steps; it is the same task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, EpisodeSampler, Outcome, State, Task, TaskOptions

QUERIES = ("int", "one_hot")


@dataclass(frozen=True)
class MemoryLengthOptions(TaskOptions):
    """Settings of bsuite's memory tasks.

    Attributes:
        num_bits: The number of bits.
        query: How the index of the bit that is asked for is observed: `int`, the index itself, as
            in bsuite; or `one_hot`. With many bits, a network can hardly tell integers apart, and
            the score is that of the encoding, not of the memory.
    """

    num_bits: int = 1
    query: str = "int"

    def __post_init__(self) -> None:
        self.check_count("num_bits", 1)
        self.check_choice("query", QUERIES)


@dataclass(frozen=True)
class MemorySizeOptions(MemoryLengthOptions):
    """Settings of `MemorySize`."""

    num_bits: int = 10


class MemoryLength(Task[MemoryLengthOptions]):
    """bsuite's `memory_len`: a bit must be remembered for `length` steps.

    Observations are `(2 + num_bits,)` float32: the time left `1 - t / length`; the query, which is
    0 before the last step; and the bits, +1 or -1, at the first two observations alone (`t` is 0 at
    both, as in bsuite). With `query="one_hot"` the query has `num_bits` components. An episode has
    `length + 1` steps. Actions are 0 and 1; the last must be 1 if the bit of the query is +1, and 0
    if it is -1: the reward is then +1, else -1. Actions before have no effect.

    Reset options: `context`, the bits `(num_bits,)`, +1 or -1; `query`, an index.
    """

    options_class = MemoryLengthOptions
    default_length: ClassVar[int] = 30
    length_name = "memory length"
    success_without_memory = 1 / 2
    num_actions = 2

    @property
    def own_space(self) -> spaces.Box:
        bits = self.options.num_bits
        one_hot = self.options.query == "one_hot"
        query = np.ones(bits) if one_hot else np.full(1, bits - 1)
        low = np.concatenate([[0], np.zeros(len(query)), -np.ones(bits)]).astype(np.float32)
        high = np.concatenate([[1], query, np.ones(bits)]).astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def privileged_space(self) -> spaces.Box:
        bits = self.options.num_bits
        return spaces.Box(-1, 1, (2 * bits,), np.float32)  # the bits, and the query one-hot

    def steps(self, length: Any) -> Any:
        return length + 1

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        bits = self.options.num_bits
        return {
            "context": sampler.choice("context", [-1, 1], (bits,)),
            "query": sampler.between("query", 0, bits - 1),
        }

    def observe(self, state: State) -> Array:
        length, bits = state["length"], self.options.num_bits
        t = np.maximum(state["time"] - 1, 0)
        asked = t == length - 1
        seen = np.zeros((len(t), *self.own_shape), dtype=np.float32)
        seen[:, 0] = 1 - t / length
        if self.options.query == "one_hot":
            seen[:, 1 : 1 + bits] = self._one_hot(state) & asked[:, None]
        else:
            seen[:, 1] = state["query"] * asked
        seen[:, -bits:] = state["context"] * (t == 0)[:, None]
        return seen

    def reveal(self, state: State) -> Array:
        return np.concatenate([state["context"], self._one_hot(state)], axis=1, dtype=np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        last = state["time"] == state["length"]
        right = actions == self._answer(state)
        reward = np.where(last, np.where(right, 1.0, -1.0), 0.0)
        return Outcome(reward, last, last & right)

    def oracle(self, state: State) -> Array:
        """Returns the answer at the last step, and 0 before, so that actions do not tell it."""
        return np.where(state["time"] == state["length"], self._answer(state), 0)

    def _answer(self, state: State) -> Array:
        rows = np.arange(len(state["query"]))
        answer: Array = (state["context"][rows, state["query"]] > 0).astype(np.int64)
        return answer

    def _one_hot(self, state: State) -> Array:
        found: Array = state["query"][:, None] == np.arange(self.options.num_bits)
        return found


class MemorySize(MemoryLength):
    """bsuite's `memory_size`: many bits must be remembered for `length` steps, by default 2."""

    options_class = MemorySizeOptions
    default_length = 2
