"""Maps a function over tasks in worker processes; a task whose worker dies is tried again."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from rate.errors import UserError
from rate.workers.child import Beat, Service, last_lines
from rate.workers.engine import Call, Perform, engine_elsewhere
from rate.workers.pool import WorkerPool, available_cores
from rate.workers.worker import STARTING_S, TIMEOUT_S, Worker, WorkerDied

ATTEMPTS = 3  # for each task
AHEAD = 4  # tasks for each worker that may run ahead of the next result
_POLL_S = 1.0


class TaskFailure(Exception):
    """A task failed in every attempt.

    Attributes:
        task: The task.
        attempts: The number of attempts.
        reason: The error of the last attempt.
    """

    def __init__(self, task: Any, attempts: int, reason: str) -> None:
        super().__init__(task, attempts, reason)
        self.task, self.attempts, self.reason = task, attempts, reason

    def __str__(self) -> str:
        return f"failed {self.attempts} times: {self.reason}"


def run_tasks(
    make: Callable[[], Perform],
    tasks: Sequence[Any],
    num_workers: int | None,
    timeout: float = TIMEOUT_S,
    attempts: int = ATTEMPTS,
    most_failures: int = 0,
) -> Generator[Any, None, None]:
    """Yields the results of tasks, in the order of the tasks.

    A worker that dies or hangs, or in which a task raises, is replaced, and the task is tried
    again. Close the generator (`contextlib.closing`) to end the workers early. Workers are
    processes of this machine, or those of the engine of `rate.workers.engine.performing_on`.

    Args:
        make: Returns the function that performs a task. Each worker calls `make` once. It is
            pickled as described in `Worker`. If the function has a method `close`, that is called
            at the end.
        tasks: The tasks. They and their results must be picklable.
        num_workers: The number of worker processes; None is one for each processor core. 0 performs
            the tasks in this process, without a time limit; an engine performs them one at a time.
        timeout: Seconds without a heartbeat after which a worker counts as hung.
        attempts: The number of attempts for each task.
        most_failures: The number of tasks that may fail in every attempt; the `TaskFailure` is
            yielded in the place of their results.

    Raises:
        UserError: If a task raises one; the task is not tried again.
        TaskFailure: If more tasks fail in every attempt.
    """
    failures = 0
    engine = engine_elsewhere() or Processes()
    with closing(engine.results(make, tasks, num_workers, timeout, attempts)) as results:
        for result in results:
            failures += isinstance(result, TaskFailure)
            if failures > most_failures and isinstance(result, TaskFailure):
                raise result
            yield result


class Processes:
    """The engine that performs tasks and calls in worker processes of this machine."""

    @property
    def capacity(self) -> int:
        return available_cores()

    def results(
        self,
        make: Callable[[], Perform],
        tasks: Sequence[Any],
        num_workers: int | None,
        timeout: float,
        attempts: int,
    ) -> Generator[Any, None, None]:
        if num_workers is None:
            num_workers = self.capacity
        if not num_workers:
            yield from _perform_in_process(make, tasks, attempts)
            return
        run = _Run(make, tasks, min(num_workers, len(tasks)), timeout, attempts)
        try:
            for index in range(len(tasks)):
                yield run.result(index)
        finally:
            run.pool.close()

    def call(self, make_service: Callable[[Beat], Service], argument: Any, cores: int) -> Call:
        return Worker(make_service, argument, timeout=math.inf)


class _TaskService:
    """The service of a worker: performs tasks."""

    lost: tuple[type[Exception], ...] = ()

    def __init__(self, make: Callable[[], Perform], beat: Beat) -> None:
        self._make, self._beat = make, beat
        self._perform: Perform | None = None

    def make(self, _: Any) -> None:
        """No-op: `run` makes the function, so that an error there counts as one of a task."""

    def run(self, task: Any) -> Any:
        if self._perform is None:
            self._perform = self._make()
            self._beat()
        return self._perform(task, self._beat)

    def close(self) -> None:
        close(self._perform)


class _Run:
    """The state of `run_tasks`: tasks that wait, tasks of each worker, and results."""

    def __init__(
        self,
        make: Callable[[], Perform],
        tasks: Sequence[Any],
        num_workers: int,
        timeout: float,
        attempts: int,
    ) -> None:
        self.pool = WorkerPool()
        self._start = partial(Worker, partial(_TaskService, make), timeout=timeout)
        self._tasks, self._num_workers = tasks, num_workers
        self._timeout, self._attempts = timeout, attempts
        self._waiting = list(range(len(tasks)))  # heap of the indices of tasks
        self._failures = Counter[int]()
        self._assigned: dict[Worker, int] = {}  # the index of each busy worker's task
        self._idle: list[Worker] = []
        self._fresh: set[Worker] = set()  # have not answered `make` yet
        self._results: dict[int, Any] = {}

    def result(self, index: int) -> Any:
        """Wait for the result of a task and return it; results are requested in order."""
        while index not in self._results:
            self._assign(index + AHEAD * self._num_workers)
            for worker in self._ready():
                self._handle(worker)
        return self._results.pop(index)

    def _assign(self, end: int) -> None:
        """Assign waiting tasks of index less than `end` to idle or new workers."""
        while self._waiting and self._waiting[0] < end and len(self._assigned) < self._num_workers:
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = self.pool.add(self._start())
                self._fresh.add(worker)
            self._ask(worker, heapq.heappop(self._waiting))

    def _ask(self, worker: Worker, index: int) -> None:
        self._assigned[worker] = index
        limit = max(self._timeout, STARTING_S) if worker in self._fresh else None
        worker.ask("run", self._tasks[index], limit)

    def _ready(self) -> list[Worker]:
        """Returns the busy workers that have sent a message, died, or exceeded their time limit."""
        ready = set(wait([worker.connection for worker in self._assigned], timeout=_POLL_S))
        return [w for w in self._assigned if w.connection in ready or w.is_late]

    def _handle(self, worker: Worker) -> None:
        """Handle the next message of a busy worker, or its death."""
        index = self._assigned[worker]
        try:
            answer = worker.take()
            if worker in self._fresh and answer is not None:  # to `make`
                self._fresh.discard(worker)
                return
            if answer is None:
                worker.use_own_limit()
                return
        except UserError:
            raise
        except WorkerDied as death:
            reason = str(death)
        except Exception as error:  # noqa: BLE001 (any error of a task is tried again)
            reason = _describe(error)
            worker.close()  # its simulator may be in an invalid state
        else:
            self._results[index] = answer[0]
            del self._assigned[worker]
            self._idle.append(worker)
            return
        self._failures[index] += 1
        del self._assigned[worker]
        if self._failures[index] == self._attempts:
            self._results[index] = TaskFailure(self._tasks[index], self._attempts, reason)
            return  # the next task has another worker
        heapq.heappush(self._waiting, index)
        self.pool.restart(worker, f"task {self._tasks[index]}", reason)
        self._fresh.add(worker)
        self._idle.append(worker)


def _perform_in_process(
    make: Callable[[], Perform], tasks: Sequence[Any], attempts: int
) -> Iterator[Any]:
    perform: Perform | None = None
    try:
        for task in tasks:
            for _ in range(attempts):
                try:
                    perform = perform or make()
                    result = perform(task, _no_heartbeat)
                    break
                except UserError:
                    raise
                except Exception as error:  # noqa: BLE001 (as in a worker)
                    perform = None  # its simulator may be in an invalid state
                    result = TaskFailure(task, attempts, _describe(error))
                    result.__cause__ = error
            yield result
    finally:
        close(perform)


def _no_heartbeat() -> None:
    """No-op heartbeat, for tasks in this process."""


def close(perform: Any) -> None:
    """Release what a function of tasks holds, if it has a method `close`."""
    if hasattr(perform, "close"):
        perform.close()


def _describe(error: Exception) -> str:
    """Returns the end of the traceback in the worker, or `repr(error)` without one."""
    trace = "" if error.__cause__ is None else str(error.__cause__)
    return last_lines(trace) or repr(error)
