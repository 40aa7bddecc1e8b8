"""When something is due that happens every so many optimiser steps."""

from __future__ import annotations


class Every:
    """Tells after each batch whether a multiple of `every` optimiser steps was reached in it.

    A batch may hold several optimiser steps, and leap over the multiple.

    Args:
        every: Optimiser steps; 0 is never.
        last: The last step of training, which is always due unless `every` is 0.
    """

    def __init__(self, every: int, last: int) -> None:
        self.every, self.last, self._before = every, last, 0

    def start_batch(self, step: int) -> None:
        """Before a batch, at `step` optimiser steps."""
        self._before = step

    def is_due(self, step: int) -> bool:
        """After the batch, at `step` optimiser steps."""
        if not self.every:
            return False
        return step // self.every > self._before // self.every or step >= self.last
