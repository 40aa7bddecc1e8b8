"""Batches for Lightning's training loop.

Lightning prefetches one batch from a training loader without a length, to know when the data end.
After a curriculum stage begins, that batch would be of the previous stage. `BatchStream` has a
length, so that every batch is made when it is requested. It is not a `DataLoader`: an item is a
batch already, and there is nothing for workers, collation or a distributed sampler to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rate.batch import Batch


class BatchStream:
    """An endless series of batches with a nominal length.

    Args:
        next_batch: Returns the next batch.
        length: The length of an epoch, in batches.
    """

    def __init__(self, next_batch: Callable[[], Batch], length: int) -> None:
        self._next_batch, self._length = next_batch, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self._next_batch()

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: the DataModule and the trainer keep the state.

        Lightning resumes within an epoch only if the method exists.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores nothing."""
