"""Windows for truncated BPTT over whole episodes: consecutive batches hold consecutive windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.sampler import WindowSampler

_ROW_PERMUTATION = 3
Numbers = npt.NDArray[np.int64]


class ConsecutiveSampler(WindowSampler):
    """Samples so that every row of a batch continues the same row of the batch before.

    A row reads whole episodes, one after another, each cut into windows of `T` steps (the last is
    shorter): each pass over the eligible episodes is a permutation of the row's own. Rows begin
    their first episode at windows that are spread over it, so that a batch has windows from all
    parts of episodes. Batch `i` is a pure function of `(seed, stream, i)`. Takes what
    `WindowSampler` takes; the orders of all rows are kept in memory.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._ends is not None:
            raise ValueError("consecutive windows reach every step equally often: sample episodes")
        self._counts: Numbers = -(-self._lengths // self.window)  # windows of each episode
        self._orders: dict[int, tuple[int, Numbers, Numbers]] = {}

    def _choose(self, index: int) -> tuple[Numbers, Numbers, Numbers]:
        """See `WindowSampler`."""
        if index < 0:
            raise ValueError(f"batch {index}: the index of a batch is 0 or more")
        first = self.rank * self.batch_size
        found = [self._window(row, index) for row in range(first, first + self.batch_size)]
        chosen, numbers = np.array(found, dtype=np.int64).T
        starts = self.window * numbers
        return chosen, starts, np.minimum(starts + self.window, self._lengths[chosen])

    def _window(self, row: int, index: int) -> tuple[int, int]:
        """Returns the position of an episode, and which of its windows a row of a batch holds."""
        begin = self._counts[self._order(row, 0)[0][0]] * row // (self.batch_size * self.world_size)
        number, place = divmod(index + int(begin), int(self._counts.sum()))
        order, ends = self._order(row, number)
        position = int(np.searchsorted(ends, place, side="right"))
        episode = int(order[position])
        return episode, place - int(ends[position] - self._counts[episode])

    def _order(self, row: int, number: int) -> tuple[Numbers, Numbers]:
        """Returns the permutation of the episodes in a pass of a row, and its cumulated windows."""
        known = self._orders.get(row)
        if known is None or known[0] != number:
            words = self._words(_ROW_PERMUTATION, number, self.num_episodes, row)
            order: Numbers = np.argsort(words, kind="stable")
            known = self._orders[row] = number, order, np.cumsum(self._counts[order])
        return known[1:]
