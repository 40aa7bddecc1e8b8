"""Progress of runs and rollouts on the screen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from queue import Empty
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from trainers.config import RunConfig


class Bars:
    """A progress bar for the rollouts of every episode length."""

    def __init__(self, name: str, lengths: Sequence[int], console: Console) -> None:
        self.progress = Progress(console=console, disable=not console.is_terminal)
        self.tasks = {
            length: self.progress.add_task(f"{name} at {length}", total=1.0) for length in lengths
        }

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, length: int, share: float) -> None:
        """Move the bar of `length` to the share that is done."""
        self.progress.update(self.tasks[length], completed=share)


class Board:
    """A progress bar per run; on anything but a terminal, a line per phase."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.fields[run]:<24}"),
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TextColumn("{task.completed:>7.0f}/{task.total:<7.0f}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.phases: dict[str, str] = {}

    def __enter__(self) -> Board:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def add(self, config: RunConfig) -> None:
        total = config.training.max_steps
        self.tasks[config.run_name] = self.progress.add_task(
            "waiting", total=total, start=False, run=config.run_name
        )

    def drain(self, queue: Any) -> None:
        """Show what the runs report, for a fifth of a second."""
        until = time.monotonic() + 0.2
        while (left := until - time.monotonic()) > 0:
            try:
                run, phase, step, total = queue.get(timeout=left)
            except Empty:
                return
            task = self.tasks[run]
            if self.phases.get(run) is None:
                self.progress.start_task(task)
            self.progress.update(task, description=phase, completed=step, total=total)
            if self.phases.get(run) != phase and not self.console.is_terminal:
                self.console.print(f"{run}: {phase}")
            self.phases[run] = phase
