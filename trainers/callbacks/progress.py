"""Progress display of a training run: a live line on a terminal, or lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rate.progress import OnProgress
from trainers.description import describe_training
from trainers.environment import Length, at_length
from trainers.losses import LossModule
from trainers.meter import Meter
from trainers.sources.online import OnlineData

Report = Callable[[str, int, int], None]


class Progress(Callback):
    """Shows loss, accuracy at episode ends, segments, speed and remaining time.

    Before the first step it prints the model, its horizons, the data and the device.

    Args:
        max_steps: Optimiser steps of training.
        make_meter: Makes the display; on standard error by default.
    """

    def __init__(self, max_steps: int, make_meter: Callable[[], Meter] = Meter) -> None:
        self.max_steps = max_steps
        self._make_meter = make_meter
        self._meter: Meter | None = None
        self._step, self._note = 0, ""
        self._start = (0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (trainer.is_global_zero and isinstance(pl_module, LossModule)):
            return
        self._step = trainer.global_step
        self._start = (self._step, time.perf_counter())
        self._meter = self._make_meter()
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        for line in describe_training(trainer, pl_module, datamodule):
            self._meter.say(line)
        self._show("")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._step = min(trainer.global_step, self.max_steps)
        self._note = self._describe(trainer)
        self._show(self._note)

    def show_rollout(self, length: Length, share: float) -> None:
        """Show the progress of a rollout during training."""
        self._show(f"rollout at {at_length(length)}: {share:.0%}  {self._note}".rstrip())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _show(self, note: str) -> None:
        if self._meter is not None:
            self._meter.show("training", self._step, self.max_steps, note)

    def _describe(self, trainer: Trainer) -> str:
        metrics: dict[str, float] = getattr(trainer.lightning_module, "logged", {})
        names = {"loss": "loss", "last_step_accuracy": "last step", "segments": "N"}
        parts = [f"{short} {metrics[name]:.4g}" for name, short in names.items() if name in metrics]
        first, started = self._start
        speed = (trainer.global_step - first) / max(time.perf_counter() - started, 1e-9)
        source = trainer.datamodule  # type: ignore[attr-defined]
        online = [source.note()] if isinstance(source, OnlineData) else []
        return "  ".join([*parts, f"{speed:.1f} steps/s", *online])

    def _stop(self) -> None:
        if self._meter is not None:
            self._meter.close()
            self._meter = None


class Reporter(Callback):
    """Calls a function after every training step: `report("training", step, max_steps)`."""

    def __init__(self, max_steps: int, report: Report) -> None:
        self.max_steps, self.report = max_steps, report

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            self.report("training", min(trainer.global_step, self.max_steps), self.max_steps)


@contextmanager
def preparing(
    shown: bool, report: Report | None, make_meter: Callable[[], Meter] = Meter
) -> Iterator[OnProgress]:
    """Yields the progress function of the preparation of data: display, report or neither.

    Args:
        shown: Whether to display the progress.
        report: Called as `report("collecting", episodes, all)`, and so on.
        make_meter: Makes the display; on standard error by default.
    """
    meter: Meter | None = None

    def show(phase: str, done: int, total: int | None) -> None:
        nonlocal meter
        if report is not None and total is not None:
            report(phase, done, total)
        if shown:
            meter = meter or make_meter()
            meter.show(phase, done, total)

    try:
        yield show
    finally:
        if meter is not None:
            meter.close()
