"""Several worker processes that end together, each replaced when it dies."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence

from rate.advice import command
from rate.workers.child import WorkerFailure
from rate.workers.worker import Worker, close_workers

_LOG = logging.getLogger(__name__)
_FEW_CORES = 3  # to leave one of them to the policy would cost more than it gains


class WorkerPool:
    """Worker processes, which end with the pool, however the program ends.

    Args:
        max_restarts: How many workers in all may be replaced; None is any number.

    Attributes:
        workers: In the order in which they were added.
    """

    def __init__(self, max_restarts: int | None = None) -> None:
        self.workers: list[Worker] = []
        self._max_restarts, self._restarts = max_restarts, 0
        # Runs at the interpreter's exit as well.
        self._finalizer = weakref.finalize(self, close_workers, self.workers)

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        """End the processes. Nothing happens the second time."""
        self._finalizer()

    def add(self, worker: Worker) -> Worker:
        """Have a worker end with the pool."""
        self.workers.append(worker)
        return worker

    def restart(self, worker: Worker, what: str, why: str) -> None:
        """Start the process of a dead worker afresh, and log it.

        Args:
            worker: Is dead.
            what: What it worked at, for people.
            why: The cause of its death.

        Raises:
            WorkerFailure: If there were too many restarts. The pool is closed then.
        """
        self._restarts += 1
        if self._max_restarts is not None and self._restarts > self._max_restarts:
            self.close()
            raise WorkerFailure(
                f"{what} failed: {why}. Workers have been restarted {self._max_restarts} times "
                "already. To see whether the simulator runs on this computer: "
                f"{command('doctor')}"
            )
        _LOG.warning("%s: restarting the worker process: %s", what, why)
        worker.start()


def available_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_for_simulators() -> int:
    """One worker for every core, but from four cores on one is left to the policy."""
    cores = available_cores()
    return cores - 1 if cores > _FEW_CORES else cores


def split_evenly(num_rows: int, num_workers: int | None) -> Sequence[range]:
    """Consecutive rows for each worker; at most one worker for each row.

    Raises:
        ValueError: If there is nothing to split, or nobody to split it between.
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
