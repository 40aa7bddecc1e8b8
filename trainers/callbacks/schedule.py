"""Callbacks that act at a fixed interval of optimiser steps."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rate.weights import is_intact
from trainers.sequence import SequenceTrainer


class Every:
    """Detects the batches that reach a multiple of `every` optimiser steps.

    A batch may take several optimiser steps and pass a multiple.

    Args:
        every: Interval in optimiser steps; 0 disables it.
        last: The last step of training, which is always due unless `every` is 0.
    """

    def __init__(self, every: int, last: int) -> None:
        self.every, self.last, self._before = every, last, 0

    def start_batch(self, step: int) -> None:
        """Record the number of optimiser steps before a batch."""
        self._before = step

    def is_due(self, step: int) -> bool:
        """Whether the batch has reached a multiple; `step` is the number of optimiser steps."""
        if not self.every:
            return False
        return step // self.every > self._before // self.every or step >= self.last


class IntervalCallback(Callback):
    """Base of callbacks that act at an interval of optimiser steps.

    Args:
        every: Optimiser steps between two calls; 0 disables them.
        max_steps: Optimiser steps of training.
    """

    def __init__(self, every: int, max_steps: int) -> None:
        self._schedule = Every(every, max_steps)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._schedule.start_batch(trainer.global_step)


def best_or_none(folder: Path | None, step: int | None) -> int | None:
    """Returns the step of the best weights, or None with a warning if they are damaged."""
    if folder is None or step is None or is_intact(folder):
        return step
    warnings.warn(
        f"{folder} is damaged: the weights that were the best, of step {step}, are lost. The next "
        "evaluation that chooses weights begins anew.",
        stacklevel=3,
    )
    return None


class ScheduledCallback(IntervalCallback):
    """Calls `act` after batches that reach a multiple of `every` optimiser steps, and at the end.

    All processes first check that all earlier steps were finite, so that none deadlocks.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._schedule.is_due(trainer.global_step) and isinstance(pl_module, SequenceTrainer):
            pl_module.check()
            self.act(trainer, pl_module)

    def act(self, trainer: Trainer, module: SequenceTrainer) -> None:
        """Called when the interval is reached."""
        raise NotImplementedError
