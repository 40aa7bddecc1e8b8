"""Sources of training batches; the next one is made in a background thread during a step."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch

from rate.batch import Batch


class BatchSource(Protocol):
    """Batches by number.

    Of stored data a batch is a pure function of the source and its index: resuming needs the index
    alone, a batch can be prefetched, and a retry gives the same one. `WindowSampler` samples
    training windows; `HeldOutBatches` has held-out windows in a fixed order.
    """

    def batch(self, index: int) -> Batch:
        """Returns batch `index` of this process: `(B, T, ...)` on the device of the data."""


class Prefetcher:
    """Prefetches the next batch in one background thread.

    A prefetched batch that is not requested, because a curriculum changed the source, is dropped;
    the timing of the thread cannot change the batches of training.

    Args:
        device: Where batches go. A GPU copies them from pinned memory on a stream of its own,
            beside its other work.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._ahead: tuple[BatchSource, int, Future[Batch]] | None = None

    def batch(self, source: BatchSource, index: int) -> Batch:
        """Returns batch `index` on the device and starts on the next one.

        An error of making the batch is raised here, whichever thread it occurred in.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[:2] != (source, index):
            ahead = source, index, self._pool.submit(self._make, source, index)
        batch = ahead[2].result()
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._stream)
            batch.record_stream(current)  # its memory belongs to the copy stream; free it after use
        self._ahead = source, index + 1, self._pool.submit(self._make, source, index + 1)
        return batch

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(cancel_futures=True)

    def _make(self, source: BatchSource, index: int) -> Batch:
        batch = source.batch(index)
        if self._stream is None:
            return batch
        with torch.cuda.stream(self._stream):
            return batch.pin_memory().to(self.device, non_blocking=True)
