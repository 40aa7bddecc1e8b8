"""Callbacks that act every so many optimiser steps."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from trainers.sequence import SequenceTrainer


class Every:
    """Tells after each batch whether it reached a multiple of `every` optimiser steps.

    A batch may take several optimiser steps, and so pass a multiple.

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


class ScheduledCallback(Callback):
    """Calls `act` after batches that reach a multiple of `every` optimiser steps, and at the end.

    All steps before were finite: all processes check that first, so that none waits for another.

    Args:
        every: Optimiser steps between two calls; 0 is never.
        max_steps: Optimiser steps of training.
    """

    def __init__(self, every: int, max_steps: int) -> None:
        self._schedule = Every(every, max_steps)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._schedule.start_batch(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._schedule.is_due(trainer.global_step) and isinstance(pl_module, SequenceTrainer):
            pl_module.check()
            self.act(trainer, pl_module)

    def act(self, trainer: Trainer, module: SequenceTrainer) -> None:
        """Do what is due."""
        raise NotImplementedError
