"""Performs tasks and calls in the processes of a Ray cluster; see `rate.workers.engine`.

A task or a call whose process or node dies is performed again by Ray, elsewhere. Processes of Ray
import this module: it must not import modules that load slowly.
"""

from __future__ import annotations

import faulthandler
import math
import pickle
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper

from rate.errors import UserError
from rate.stopping import with_number
from rate.workers.child import Beat, Service, last_lines, pickled
from rate.workers.engine import Perform
from rate.workers.tasks import AHEAD, ATTEMPTS, TaskFailure, close
from rate.workers.worker import STARTING_S, WorkerDied
from trainers.ray_cluster import Origin

_POLL_S = 1.0
_BEAT_S = 0.5  # least time between two extensions of a time limit, or two notes
_COUNT_S = 5.0  # how long the number of cores of the cluster is taken to be the same


class RayEngine:
    """Performs tasks and calls on the cluster that this process is connected to.

    Args:
        origin: What the processes on the nodes need to know.

    Attributes:
        is_used: Whether there were tasks or calls.
    """

    def __init__(self, origin: Origin) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._origin = ray.put(origin)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board)
        self._board = board.remote()
        self._cores, self._counted_at = 0, -math.inf
        self.is_used = False

    @property
    def capacity(self) -> int:
        """The cores of the cluster, which may gain and lose nodes."""
        import ray

        if time.monotonic() - self._counted_at > _COUNT_S:
            self._counted_at = time.monotonic()
            self._cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        return self._cores

    def results(
        self,
        make: Callable[[], Perform],
        tasks: Sequence[Any],
        num_workers: int | None,
        timeout: float,
        attempts: int,
    ) -> Generator[Any, None, None]:
        """Yields the results of tasks in their order; see `Engine.results`."""
        import ray

        self.is_used = self.is_used or bool(tasks)
        perform: Any = ray.remote(
            num_cpus=1, max_retries=attempts - 1, retry_exceptions=[_TaskError]
        )(_perform)
        made = ray.put(pickle.dumps(CloudpickleWrapper(make)))
        begin = partial(perform.remote, uuid.uuid4().hex, self._origin, made, timeout)
        begun: dict[int, Any] = {}  # the answers that will be, by the task's index
        running: set[Any] = set()
        following = 0
        try:
            for index in range(len(tasks)):
                while index not in begun or begun[index] in running:
                    most = max(1, self.capacity if num_workers is None else num_workers)
                    end = min(len(tasks), index + AHEAD * most)
                    while following < end and len(running) < most:
                        begun[following] = begin(tasks[following])
                        running.add(begun[following])
                        following += 1
                    with with_number():
                        done, _ = ray.wait(list(running), timeout=_POLL_S)
                    running.difference_update(done)
                yield _result(begun.pop(index), tasks[index], attempts)
        finally:
            for answer in running:
                ray.cancel(answer, force=True)

    def call(self, make_service: Callable[[Beat], Service], argument: Any, cores: int) -> _Call:
        """Begins a call of a service's `make`; see `Engine.call`."""
        import ray

        self.is_used = True
        nodes = [node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"]]
        cores = min(cores, max(1, int(max(nodes))))  # a call that no node has room for never begins
        return _Call(self._origin, self._board, make_service, argument, cores)


def _result(answer: Any, task: Any, attempts: int) -> Any:
    """Returns the result of a task that has ended, or a `TaskFailure`.

    Raises:
        UserError: If the task has raised one.
    """
    from ray.exceptions import RayError

    try:
        return _opened(_get(answer))
    except RayError as error:
        reason = str(getattr(error, "cause", None) or error)
        return TaskFailure(task, attempts, reason)


class _Call:
    """A call in a process of the cluster; see `rate.workers.engine.Call`."""

    def __init__(
        self,
        origin: Any,
        board: Any,
        make_service: Callable[[Beat], Service],
        argument: Any,
        cores: int,
    ) -> None:
        import ray

        work = pickle.dumps(CloudpickleWrapper(lambda: (make_service, argument)))
        serve: Any = ray.remote(num_cpus=cores, max_retries=ATTEMPTS - 1)(_serve)
        self._name, self._board, self.note = uuid.uuid4().hex, board, None
        self._answer = serve.remote(origin, work, board, self._name)

    def take(self) -> tuple[Any] | None:
        import ray

        done, _ = ray.wait([self._answer], timeout=_POLL_S)
        if not done:
            self.note = ray.get(self._board.read.remote(self._name))
            return None
        try:
            return (_opened(_get(self._answer)),)
        except ray.exceptions.RayError as error:
            raise WorkerDied(str(error)) from error

    def stop(self) -> None:
        """Interrupts the process as Ctrl+C does, or leaves the call out if it has not begun."""
        import ray

        ray.cancel(self._answer)

    def close(self) -> None:
        import ray

        with suppress(ray.exceptions.RayError):
            ray.cancel(self._answer, force=True)


class _Board:
    """The last notes of calls; an actor on the node of the process that reads them."""

    def __init__(self) -> None:
        self._notes: dict[str, Any] = {}

    def write(self, name: str, note: Any) -> None:
        self._notes[name] = note

    def read(self, name: str) -> Any:
        return self._notes.get(name)


# What follows runs in processes of the cluster.

_PERFORMS: dict[str, Perform] = {}  # the function of the tasks that this process performs


class _TaskError(Exception):
    """A task has raised an exception, and is to be tried again."""


def _perform(job: str, origin: Origin, made: bytes, timeout: float, task: Any) -> tuple[str, Any]:
    """Returns `("done", the result)` or `("error", the pickled UserError)` of a task.

    Raises:
        _TaskError: If the task raises another exception.
    """
    try:
        with _time_limit(timeout) as beat:
            if job not in _PERFORMS:
                while _PERFORMS:
                    close(_PERFORMS.popitem()[1])
                origin.enter()
                _PERFORMS[job] = pickle.loads(made).fn()  # noqa: S301 (our own)
            return "done", _PERFORMS[job](task, beat)
    except UserError as error:
        return "error", pickled(error)
    except Exception:  # noqa: BLE001 (any error of a task is tried again)
        close(_PERFORMS.pop(job, None))  # its simulator may be in an invalid state
        raise _TaskError(last_lines(traceback.format_exc())) from None


def _serve(origin: Origin, work: bytes, board: Any, name: str) -> tuple[str, Any]:
    """Returns `("done", the answer)` or `("error", the pickled exception)` of a service."""
    sent_at = -math.inf

    def beat(*note: Any) -> None:
        nonlocal sent_at
        if note and time.monotonic() - sent_at > _BEAT_S:
            sent_at = time.monotonic()
            board.write.remote(name, note[0])

    try:
        origin.enter()
        make_service, argument = pickle.loads(work).fn()  # noqa: S301 (our own)
        service = make_service(beat)
        try:
            return "done", service.make(argument)
        finally:
            service.close()
    except Exception as error:  # noqa: BLE001 (raised where the call was made)
        return "error", pickled(error)


@contextmanager
def _time_limit(seconds: float) -> Generator[Beat, None, None]:
    """Context that ends this process after so many seconds without a heartbeat.

    The time is watched by a thread that needs no lock of the interpreter, which a simulator that
    hangs may hold.
    """
    extended_at = time.monotonic()

    def extend(limit: float) -> None:
        if math.isfinite(limit):
            faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__ or 2)

    def beat(*_: Any) -> None:
        nonlocal extended_at
        if time.monotonic() - extended_at > _BEAT_S:
            extended_at = time.monotonic()
            extend(seconds)

    extend(max(seconds, STARTING_S))
    try:
        yield beat
    finally:
        faulthandler.cancel_dump_traceback_later()


def _get(answer: Any) -> tuple[str, Any]:
    import ray

    found: tuple[str, Any] = ray.get(answer)
    return found


def _opened(answer: tuple[str, Any]) -> Any:
    """Returns what was done.

    Raises:
        Exception: The one that was raised on the node.
    """
    kind, value = answer
    if kind == "error":
        raise pickle.loads(value).fn()  # noqa: S301 (our own)
    return value
