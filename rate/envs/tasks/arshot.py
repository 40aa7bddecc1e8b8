"""ARShot, associative recall: pairs of words are shown, and one word's partner is asked for.

The task is that of the code published with RATE and ELMUR (arXiv:2510.07151).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, EpisodeSampler, Outcome, State, Task, TaskOptions
from rate.envs.tasks.sampling import hashes, shuffled
from rate.errors import ConfigError

_PER_PAIR = 5  # ! key : value !
_PER_QUERY = 4  # ! query : shot


@dataclass(frozen=True)
class ARShotOptions(TaskOptions):
    """Settings of `ARShot`.

    Attributes:
        pairs: The number of pairs if no length is given; a length is a number of pairs.
        vocabulary: The number of words V; published are 3,844.
    """

    pairs: int = 3
    vocabulary: int = 32

    def __post_init__(self) -> None:
        self.check_count("pairs", 1)
        self.check_count("vocabulary", 2)
        if self.pairs > self.vocabulary:
            raise ConfigError(
                f"env.pairs={self.pairs} needs as many different words as keys, and "
                f"env.vocabulary={self.vocabulary} has fewer."
            )


class ARShot(Task[ARShotOptions]):
    """`length` pairs of words are shown; then a key is asked for, and its value is to be told.

    Observations are one symbol a step: the words 0 to V - 1, `!` (V), `:` (V + 1) and `shot`
    (V + 2). An episode is `! key : value !` for each pair, then `! query : shot`: `5 length + 4`
    steps. Keys are different words. Actions are the words, and `pass` (V). The value of the query
    at `shot` earns 1; all other actions have no effect.

    Reset options: `pairs`, `(length, 2)` words, key and value; `query`, one of the keys.

    Raises:
        ConfigError: Also if there are more pairs than words.
    """

    options_class = ARShotOptions
    length_name = "pairs"
    observation_key = "symbol"

    def __init__(self, options: ARShotOptions | None = None, length: Any = None) -> None:
        super().__init__(options, length)
        if self.lengths[1] > self.options.vocabulary:
            raise ConfigError(
                f"ARShot length {self.lengths[1]} needs as many different words as keys, and "
                f"env.vocabulary={self.options.vocabulary} has fewer."
            )

    @property
    def usual_length(self) -> int:
        return self.options.pairs

    @property
    def num_actions(self) -> int:
        return self.options.vocabulary + 1

    @property
    def own_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.options.vocabulary + 3)

    @property
    def privileged_space(self) -> spaces.Box:
        digits = (self.options.vocabulary - 1).bit_length()
        return spaces.Box(0, 1, (digits,), np.float32)  # the answer, in binary

    def steps(self, length: Any) -> Any:
        return _PER_PAIR * length + _PER_QUERY

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        count, words = self.lengths[1], self.options.vocabulary

        def make() -> Array:
            keys = shuffled(sampler.seeds, "keys", words)[:, :count]
            return np.stack([keys, hashes(sampler.seeds, "values", (count,)) % words], axis=2)

        def are_possible(pairs: Array) -> Any:
            keys = np.sort(pairs[:, :, 0], axis=1)
            return (pairs >= 0).all() and (pairs < words).all() and (np.diff(keys) > 0).all()

        told = f"keys and values must be words, 0 to {words - 1}, and no key twice"
        pairs = sampler.sample("pairs", (count, 2), make, are_possible, told)
        keys, rows = pairs[:, :, 0], np.arange(len(length))
        there = np.arange(count) < length[:, None]
        query = sampler.sample(
            "query",
            (),
            lambda: keys[rows, hashes(sampler.seeds, "query") % length],
            lambda fixed: ((keys == fixed[:, None]) & there).any(axis=1),
            "it must be one of the keys",
        )
        answer = pairs[rows, np.argmax((keys == query[:, None]) & there, axis=1), 1]
        return {"pairs": pairs, "query": query, "answer": answer}

    def observe(self, state: State) -> Array:
        """Returns the symbols `(n,)` int64; after the end, the last one."""
        words, rows = self.options.vocabulary, np.arange(len(state["time"]))
        mark, colon, shot = words, words + 1, words + 2
        time = np.minimum(state["time"], self.steps(state["length"]) - 1)
        pair, place = np.divmod(time, _PER_PAIR)
        is_query = pair >= state["length"]
        key, value = state["pairs"][rows, np.minimum(pair, self.lengths[1] - 1)].T
        key, value = np.where(is_query, state["query"], key), np.where(is_query, shot, value)
        return np.choose(place, [np.full_like(key, mark), key, colon, value, mark])

    def reveal(self, state: State) -> Array:
        digits = np.arange(self.privileged_space.shape[0])
        return ((state["answer"][:, None] >> digits) & 1).astype(np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        last = state["time"] == self.steps(state["length"]) - 1
        success = last & (actions == state["answer"])
        return Outcome(success.astype(np.float64), last, success)

    def oracle(self, state: State) -> Array:
        last = state["time"] == self.steps(state["length"]) - 1
        return np.where(last, state["answer"], self.options.vocabulary)
