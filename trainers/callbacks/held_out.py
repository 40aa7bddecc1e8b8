"""Measurements on held-out steps during training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from datamodules.trajectories import TrajectoryDataModule
from rate.weights import SavedModel, save_model
from trainers.callbacks.schedule import ScheduledCallback, best_or_none
from trainers.distributed import sum_over_processes
from trainers.held_out import FEW, Account
from trainers.held_out import LOSS as ACTION_LOSS
from trainers.sequence import SequenceTrainer
from trainers.sharding import whole_model


class HeldOutMetrics(ScheduledCallback):
    """Logs the loss and the metrics of a batch of held-out windows, periodically and at the end.

    The windows are the same each time and are divided among the processes. `held_out/loss` and the
    other metrics are those of the objective; metrics by position are those of `trainers.held_out`.

    Args:
        datamodule: The source of the windows.
        every: Optimiser steps between two measurements; 0 disables them.
        max_steps: Optimiser steps of training.
        best: The folder of the weights with the lowest action loss, the later ones of equal losses;
            None saves none.
        trained_range: Minimum and maximum return-to-go of the training data, saved with the
            weights.

    Attributes:
        best_step: Optimiser step of the best weights, or None.
        best_loss: Action loss of the best weights.
    """

    def __init__(
        self,
        datamodule: TrajectoryDataModule,
        every: int,
        max_steps: int,
        best: Path | None = None,
        trained_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(every if datamodule.held_out.num_windows else 0, max_steps)
        self.datamodule, self.best, self.trained_range = datamodule, best, trained_range
        self.best_step: int | None = None
        self.best_loss = math.inf

    def act(self, trainer: Trainer, module: SequenceTrainer) -> None:
        with whole_model(module):
            self._measure_and_save(trainer, module)

    def _measure_and_save(self, trainer: Trainer, module: SequenceTrainer) -> None:
        metrics = self._measure(trainer, module)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)
        loss = metrics.get(f"held_out/{ACTION_LOSS}", math.inf)
        if self.best is not None and math.isfinite(loss) and loss <= self.best_loss:
            self.best_step, self.best_loss = trainer.global_step, loss
            if trainer.is_global_zero:
                self._save(module, self.best)

    def _save(self, module: SequenceTrainer, folder: Path) -> None:
        extra = {"step": self.best_step, "held_out": self.best_loss}
        decoding = module.config.evaluation.decoding
        saved = SavedModel(module.model, module.spec, decoding, extra, self.trained_range)
        save_model(saved, folder)

    def state_dict(self) -> dict[str, Any]:
        return {"best_step": self.best_step, "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_step = best_or_none(self.best, state_dict["best_step"])
        self.best_loss = state_dict["best_loss"] if self.best_step else math.inf

    @torch.no_grad()
    def _measure(self, trainer: Trainer, module: SequenceTrainer) -> dict[str, float]:
        data, names = self.datamodule, module.metric_names
        account = Account(data.held_out, data.context_length, FEW)
        row = torch.zeros(2 * len(names), device=module.device)
        limits = data.batch_size, trainer.global_rank, trainer.world_size
        context = trainer.precision_plugin.val_step_context()
        with evaluating(module), uncompiled(), context:
            for batch in data.held_out_batches(module.device, data.batch_size, *limits):
                features, _, losses = module.model.features_and_losses(batch)
                row += module.row(module.sums(batch, features, losses))
                account.add(module.model, features, batch)
        sums, weights = sum_over_processes(row).cpu().view(-1, 2).T.tolist()
        found = zip(names, sums, weights, strict=True)
        means = {name: total / weight for name, total, weight in found if weight}
        columns = {**means, **account.over_processes(module.device).columns()}
        return {f"held_out/{name}": value for name, value in columns.items()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in evaluation mode, without dropout and noise; restores each submodule's mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def uncompiled() -> AbstractContextManager[Any]:
    """Returns a context in eager mode, which is faster than compiling for evaluation as well.

    It has no effect before PyTorch 2.6.
    """
    set_stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")
