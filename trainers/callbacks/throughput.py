"""The speed of training. Times differ between equal runs, so they are not in `metrics.csv`.

A GPU works asynchronously. Times are exact when the host has waited for it, which it does whenever
metrics are logged.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from trainers.csv_logger import MetricsTable


class Throughput(Callback):
    """Measures the time of training steps, without evaluation and checkpoints.

    Args:
        every: Optimiser steps between two logged values.

    Attributes:
        seconds: Time in training steps, over all interruptions.
        timesteps: Number of real steps trained on in that time.
    """

    def __init__(self, every: int) -> None:
        self.every, self.seconds = every, 0.0
        self._timesteps = 0.0
        self._unread: list[Tensor] = []  # sums still on the device
        self._mark = (0, 0.0, 0.0)  # optimiser steps, seconds and timesteps at the last log
        self._started = 0.0

    @property
    def timesteps(self) -> float:
        """The number of real steps trained on. Waits for the device."""
        if self._unread:
            self._timesteps += sum(torch.stack(self._unread).cpu().tolist())
            self._unread.clear()
        return self._timesteps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = (trainer.global_step, self.seconds, self.timesteps)
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds += time.perf_counter() - self._started
        self._unread.append(outputs["steps"])
        steps, seconds, timesteps = self._mark
        if trainer.global_step - steps < self.every:
            return
        elapsed = max(self.seconds - seconds, 1e-9)
        speed = {
            "throughput/steps_per_second": (trainer.global_step - steps) / elapsed,
            "throughput/timesteps_per_second": (self.timesteps - timesteps) / elapsed,
        }
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsTable):
                logger.log_metrics(speed, trainer.global_step)
        self._mark = (trainer.global_step, self.seconds, self.timesteps)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "timesteps": self.timesteps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self._timesteps = state_dict["seconds"], state_dict["timesteps"]
