"""One run of a study in a process of its own.

The process ends with the study, however that ends: it has `rate.workers.loop.CLOSING_TIME` seconds
to save its state. A run that dies, for example by the system's memory killer, ends no other run.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

from rate.workers.child import Beat
from rate.workers.engine import Call, engine_elsewhere
from rate.workers.tasks import Processes
from rate.workers.worker import WorkerDied
from trainers.commands.study_evaluations import Evaluation, evaluation_rows, score_evaluation
from trainers.commands.study_results import is_finished, run_folder_of
from trainers.config import RunConfig
from trainers.errors import Interrupted, TrainingError
from trainers.run_lock import is_written

_WAIT_S = 20.0
_REPORT_S = 0.2  # between two reports of a run

Report = Callable[[tuple[str, str, int, int]], None]  # (run's name, phase, done steps, total steps)


class StudyRun:
    """A run, as the process of the study sees it.

    Args:
        config: The run.
        evaluations: The evaluations after its training.
        threads: The threads of the run, unless its settings say so.
        report: Called with the progress, in the thread that waits for the result.
    """

    def __init__(
        self,
        config: RunConfig,
        evaluations: dict[str, Evaluation],
        threads: int | None,
        report: Report,
    ) -> None:
        if config.training.threads is None:
            config = replace(config, training=replace(config.training, threads=threads))
        self.config, self._report = config, report
        self._work = (config, evaluations, shlex.join(sys.argv))
        self._engine = engine_elsewhere() or Processes()
        self._call: Call | None = None
        self._stopped = Event()

    def result(self) -> str | None:
        """Train and score the run in a new process. Returns why it stopped early, or None.

        Raises:
            Exception: The error of the run.
        """
        if self._stopped.is_set():
            return "Not started."
        cores = self.config.training.threads or 1
        call = self._call = self._engine.call(_Service, self._work, cores)
        try:
            if self._stopped.is_set():
                self.stop()
            while (answer := call.take()) is None:
                if call.note is not None:
                    self._report(call.note)
            failure: str | None = answer[0]
        except WorkerDied as death:
            return f"Its process ended: {death}."
        finally:
            call.close()
        return failure

    def stop(self) -> None:
        """Ask the run to save its state and end; it does not start if it has not."""
        self._stopped.set()
        if self._call is not None:
            self._call.stop()


class _Service:
    """The service of a run's process."""

    lost: tuple[type[Exception], ...] = ()

    def __init__(self, beat: Beat) -> None:
        self._beat, self._reported_at = beat, 0.0

    def make(self, work: tuple[RunConfig, dict[str, Evaluation], str]) -> str | None:
        """Train and score a run. Returns why it stopped early, or None."""
        from trainers.train import train

        config, evaluations, command = work
        folder, report = run_folder_of(config), partial(self._report, config.run_name)
        try:
            _wait_for_writer(folder)
            resume = folder if (folder / "config.yaml").is_file() else None
            if not is_finished(config, {}):
                train(config, resume=resume, command=command, report=report)
            for name, evaluation in evaluations.items():
                if evaluation_rows(folder, name, evaluation) is None:
                    score_evaluation(folder, name, evaluation, report)
        except (Interrupted, TrainingError, KeyboardInterrupt) as error:
            return str(error)
        return None

    def close(self) -> None:
        """No-op: what a run opens it closes."""

    def _report(self, name: str, phase: str, step: int, total: int) -> None:
        now = time.monotonic()
        if step <= 1 or step == total or now - self._reported_at > _REPORT_S:
            self._reported_at = now
            self._beat((name, phase, step, total))


def _wait_for_writer(folder: Path) -> None:
    """Wait up to `_WAIT_S` seconds for a process of a killed study, which saves its state."""
    deadline = time.monotonic() + _WAIT_S
    while is_written(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
