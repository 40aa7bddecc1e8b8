"""Where training batches come from: the seam between data and the training loop."""

from __future__ import annotations

from typing import Protocol

from rate.batch import Batch


class BatchSource(Protocol):
    """Batches by number.

    Of stored data a batch is a pure function of the source and its index: resuming needs the index
    alone, a batch can be prefetched, and a retry gives the same one. `WindowSampler` draws training
    windows; `HeldOutBatches` has held-out windows in a fixed order.
    """

    def batch(self, index: int) -> Batch:
        """Returns batch `index` of this process: `(B, T, ...)` on the device of the data."""
