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
from trainers.callbacks.schedule import ScheduledCallback
from trainers.distributed import sum_over_processes
from trainers.held_out import FEW, Account
from trainers.held_out import LOSS as ACTION_LOSS
from trainers.sequence import SequenceTrainer


class HeldOutMetrics(ScheduledCallback):
    """Logs the loss and the metrics of a batch of held-out windows every so often and at the end.

    They are the same windows each time. As in training, `held_out/loss` and the other metrics are
    those of the objective; by place there are those of `trainers.held_out`. The processes share the
    windows out.

    Args:
        datamodule: Has the windows.
        every: Optimiser steps between two times; 0 is never.
        max_steps: Optimiser steps of training.
        best: Where the weights with the least action loss are saved, for where nothing else chooses
            any; of equal losses the later ones. None keeps none.
        trained_range: The least and the greatest return-to-go of the training data, saved with
            them.

    Attributes:
        best_step: Optimiser step of these weights, or None.
        best_loss: Their loss.
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
        self.best_step, self.best_loss = state_dict["best_step"], state_dict["best_loss"]

    @torch.no_grad()
    def _measure(self, trainer: Trainer, module: SequenceTrainer) -> dict[str, float]:
        data, names = self.datamodule, module.metric_names
        account = Account(data.held_out, data.context_length, FEW)
        row = torch.zeros(2 * len(names), device=module.device)
        limits = data.batch_size, trainer.global_rank, trainer.world_size
        context = trainer.precision_plugin.val_step_context()
        with evaluating(module), uncompiled(), context:
            for batch in data.held_out_batches(module.device, data.batch_size, *limits):
                features, _ = module.model.features(batch)
                row += module.row(module.sums(batch, features))
                account.add(module.model, features, batch)
        sums, weights = sum_over_processes(row).cpu().view(-1, 2).T.tolist()
        found = zip(names, sums, weights, strict=True)
        means = {name: total / weight for name, total, weight in found if weight}
        columns = {**means, **account.over_processes(module.device).columns()}
        return {f"held_out/{name}": value for name, value in columns.items()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside: no dropout, no noise. Restores the mode of each submodule."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def uncompiled() -> AbstractContextManager[Any]:
    """Eager mode inside: to compile other programs than those for training takes longer.

    PyTorch before 2.6 compiles them.
    """
    set_stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")
