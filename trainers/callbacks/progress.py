"""What a person sees of a training run: a bar on a terminal, a few lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from trainers.entries import OnEpisode

SPARSE_LINES = 10
Report = Callable[[str, int, int], None]


class Progress(Callback):
    """Shows loss, accuracy at episode ends, segments, speed and the time that is left.

    Args:
        max_steps: Optimiser steps of training.
        console: Where to; standard error by default. Where it is no terminal, ten lines tell of
            the whole training.
    """

    def __init__(self, max_steps: int, console: Console | None = None) -> None:
        self.max_steps = max_steps
        self.console = console or Console(stderr=True)
        self._bar: Bar | None = None
        self._start = (0, 0.0)
        self._next_line = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._start = (trainer.global_step, time.perf_counter())
        self._next_line = trainer.global_step + self.max_steps / SPARSE_LINES
        if placement := getattr(trainer.datamodule, "placement", ""):  # type: ignore[attr-defined]
            self.console.print(placement)
        if self.console.is_terminal:
            self._bar = Bar(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}"),
                TimeRemainingColumn(),
                console=self.console,
                expand=True,
            )
            self._bar.add_task(
                "training", total=self.max_steps, completed=trainer.global_step, metrics=""
            )
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                description="training",
                completed=min(step, self.max_steps),
                metrics=self._describe(trainer),
            )
        elif trainer.is_global_zero and (step >= self._next_line or step >= self.max_steps):
            self._next_line += self.max_steps / SPARSE_LINES
            self.console.print(f"step {step}/{self.max_steps}  {self._describe(trainer)}")

    def show_rollout(self, length: int, share: float) -> None:
        """Tell of a rollout that interrupts training."""
        if self._bar is not None:
            description = f"rollout at {length}: {share:.0%}"
            self._bar.update(self._bar.task_ids[0], description=description)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _describe(self, trainer: Trainer) -> str:
        metrics: dict[str, float] = getattr(trainer.lightning_module, "logged", {})
        names = {"loss": "loss", "decisive_accuracy": "decisive", "segments": "N"}
        parts = [f"{short} {metrics[name]:.4g}" for name, short in names.items() if name in metrics]
        first, started = self._start
        speed = (trainer.global_step - first) / max(time.perf_counter() - started, 1e-9)
        return "  ".join([*parts, f"{speed:.1f} steps/s"])

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Reporter(Callback):
    """Tells a function of every training step: `report("training", step, max_steps)`."""

    def __init__(self, max_steps: int, report: Report) -> None:
        self.max_steps, self.report = max_steps, report

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            self.report("training", min(trainer.global_step, self.max_steps), self.max_steps)


@contextmanager
def collecting(
    shown: bool, report: Report | None, console: Console | None = None
) -> Iterator[OnEpisode]:
    """What to tell of episodes that are being collected: a bar, a report, or nothing.

    Args:
        shown: Whether to show a bar (on anything but a terminal, ten lines).
        report: Told `report("collecting", episodes, all)`.
        console: Where to; standard error by default.
    """
    console = console or Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        tasks: list[TaskID] = []

        def tell(done: int, total: int) -> None:
            if report is not None:
                report("collecting", done, total)
            if not shown:
                return
            if console.is_terminal:
                tasks.extend([] if tasks else [bar.add_task("collecting", total=total)])
                bar.update(tasks[0], completed=done)
            elif done % max(1, total // SPARSE_LINES) == 0 or done == total:
                console.print(f"collecting: {done}/{total} episodes")

        yield tell
