"""A pool of worker processes that end together; a worker that dies is replaced."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Sequence

from rate.advice import command
from rate.workers.child import WorkerFailure
from rate.workers.worker import Worker, close_workers

_LOG = logging.getLogger(__name__)
_HOUR_S = 3600.0
_FEW_CORES = 3  # with so few, reserving one for the policy costs more time than it saves


class WorkerPool:
    """Worker processes that end when the pool is closed or collected, or the program exits.

    Args:
        max_restarts: The number of restarts within an hour, over all workers, that are allowed;
            None is unlimited.

    Attributes:
        workers: The workers in the order in which they were added.
    """

    def __init__(self, max_restarts: int | None = None) -> None:
        self.workers: list[Worker] = []
        self._max_restarts = max_restarts
        self._restarts: deque[float] = deque()  # their times
        # Runs at the interpreter's exit as well.
        self._finalizer = weakref.finalize(self, close_workers, self.workers)

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        """End the processes. A second call has no effect."""
        self._finalizer()

    def add(self, worker: Worker) -> Worker:
        """Add a worker, which ends with the pool. Returns it."""
        self.workers.append(worker)
        return worker

    def restart(self, worker: Worker, what: str, why: str) -> None:
        """Start a new process for a dead worker, and log a warning.

        Args:
            worker: The dead worker.
            what: The work it did, for the messages.
            why: The cause of its death, for the messages.

        Raises:
            WorkerFailure: If `max_restarts` is exceeded. The pool is closed then.
        """
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > _HOUR_S:
            self._restarts.popleft()
        if len(self._restarts) == self._max_restarts:
            raise self.failure(what, why, f"{self._max_restarts} times within an hour")
        self._restarts.append(now)
        _LOG.warning("%s: restarting the worker process: %s", what, why)
        worker.start()

    def failure(self, what: str, why: str, how_often: str) -> WorkerFailure:
        """Close the pool. Returns the error of workers that have been restarted too often."""
        self.close()
        return WorkerFailure(
            f"{what} failed: {why}. Workers have been restarted {how_often} already. To see "
            f"whether the simulator runs on this computer: {command('doctor')}"
        )


def available_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_for_simulators() -> int:
    """Returns the default number of workers: the cores, less one for the policy from four cores."""
    cores = available_cores()
    return cores - 1 if cores > _FEW_CORES else cores


def split_evenly(num_rows: int, num_workers: int | None) -> Sequence[range]:
    """Returns a range of consecutive rows for each worker.

    Args:
        num_rows: The number of rows.
        num_workers: The number of workers, reduced to `num_rows` if larger; None is
            `cores_for_simulators()`.

    Raises:
        ValueError: If either number is less than 1.
    """
    if num_workers is None:
        num_workers = cores_for_simulators()
    if num_rows < 1 or num_workers < 1:
        raise ValueError(f"{num_rows} rows in {num_workers} workers: at least one of each")
    count = min(num_workers, num_rows)
    return [
        range(worker * num_rows // count, (worker + 1) * num_rows // count)
        for worker in range(count)
    ]
