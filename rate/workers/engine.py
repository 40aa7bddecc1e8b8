"""The seam behind which work is performed: by processes here, or by those of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from rate.workers.child import Beat, Service

Perform = Callable[[Any, Beat], Any]  # returns the result of a task; sends heartbeats meanwhile


class Call(Protocol):
    """A call of a service's `make` in another process, which sends notes of its progress.

    Attributes:
        note: The last note, or None.
    """

    note: Any

    def take(self) -> tuple[Any] | None:
        """Wait for the next message. Returns the answer in a 1-tuple, or None for a note.

        Raises:
            WorkerDied: If the process has ended.
            Exception: The exception that the service raised.
        """

    def stop(self) -> None:
        """Ask the service to save its state and end; its answer still arrives."""

    def close(self) -> None:
        """End the process."""


class Engine(Protocol):
    """Performs tasks and calls."""

    @property
    def capacity(self) -> int:
        """The number of tasks that it can perform at the same time."""

    def results(
        self,
        make: Callable[[], Perform],
        tasks: Sequence[Any],
        num_workers: int | None,
        timeout: float,
        attempts: int,
    ) -> Generator[Any, None, None]:
        """Yields the results of tasks in their order, or a `TaskFailure` in place of one.

        The arguments are those of `rate.workers.tasks.run_tasks`.
        """

    def call(self, make_service: Callable[[Beat], Service], argument: Any, cores: int) -> Call:
        """Begin a call of a service's `make` in a process of its own.

        Args:
            make_service: Takes the function that sends a heartbeat and returns the service.
            argument: The argument of `make`.
            cores: The number of processor cores that it uses.
        """


_ENGINE: ContextVar[Engine | None] = ContextVar("engine", default=None)


@contextmanager
def performing_on(engine: Engine) -> Iterator[None]:
    """Context in which an engine performs the tasks and calls, in place of processes here."""
    token = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def engine_elsewhere() -> Engine | None:
    """Returns the engine of `performing_on`; None if processes of this machine perform."""
    return _ENGINE.get()
