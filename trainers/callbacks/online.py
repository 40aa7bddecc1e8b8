"""Metrics of acting while learning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from trainers.callbacks.schedule import ScheduledCallback
from trainers.sequence import SequenceTrainer


class OnlineMetrics(ScheduledCallback):
    """Logs the steps, the episodes and their results, `online/...`, beside the metrics."""

    def act(self, trainer: Trainer, module: SequenceTrainer) -> None:
        source: Any = trainer.datamodule  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            logger.log_metrics(source.metrics(), trainer.global_step)
