"""A worker process of our own Python: makes a service and calls its methods for the parent.

The protocol is a pickled tuple each way. A request is `(method of the service, argument)`, the
first one `("make", (pickled function that makes the service, argument))`. The answer is
`("done", value)`, `("lost", reason)` if the service cannot go on, or `("error", pickled exception,
traceback)`. Any number of `("alive",)` may come before it.
"""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection  # not on Windows
from typing import Any, Protocol

from gymnasium.vector.utils import CloudpickleWrapper

from rate.errors import UserError
from rate.workers.loop import serve

_BEAT_S = 0.5  # between two signs of life, however many there are


class WorkerFailure(UserError):
    """A worker process could not begin its work, or workers have died too often."""


class Service(Protocol):
    """What a worker does. Its public methods are what the parent may ask for."""

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """The errors after which the process has to be replaced."""

    def make(self, argument: Any) -> Any:
        """Begin; returns what the parent has to know."""

    def close(self) -> None:
        """Clean up."""


Beat = Callable[[], None]


def main(descriptor: int) -> None:
    """Serve the parent at the other end of a pipe."""
    child = _Child(Connection(descriptor))
    serve(descriptor, child.pipe.recv, child.answer, child.close)


class _Child:
    """The service of this process, and the pipe to the parent."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self._next_beat = pipe, 0.0
        self._service: Service | None = None

    def answer(self, request: tuple[str, Any]) -> None:
        """Call a method of the service and send what it returned or raised."""
        self.pipe.send(self._call(*request))

    def beat(self) -> None:
        """Tell the parent that this process is alive."""
        if (now := time.monotonic()) >= self._next_beat:
            self._next_beat = now + _BEAT_S
            self.pipe.send(("alive",))

    def close(self) -> None:
        if self._service is not None:
            self._service.close()

    def _call(self, method: str, argument: Any) -> tuple[Any, ...]:
        service: Any = self._service
        try:
            if method == "make":
                pickled, argument = argument
                service = self._service = pickle.loads(pickled).fn(self.beat)  # noqa: S301 (ours)
            return "done", getattr(service, method)(argument)
        except Exception as error:  # noqa: BLE001 (whatever it is, the parent has to know)
            if service is not None and method != "make" and isinstance(error, service.lost):
                return "lost", f"{type(error).__name__}: {error}"
            trace = traceback.format_exc()
            if service is None and not isinstance(error, UserError):
                error = WorkerFailure(f"a worker process cannot begin:\n{last_lines(trace)}")
            return "error", _pickled(error), trace


def last_lines(trace: str, count: int = 6) -> str:
    """The end of a traceback, which says the most."""
    return "\n".join(trace.strip().splitlines()[-count:])


def _pickled(error: Exception) -> bytes:
    """The error, or one that says the same if it does not survive the journey."""
    try:
        pickled = pickle.dumps(CloudpickleWrapper(lambda: error))
        pickle.loads(pickled)  # noqa: S301 (our own)
    except Exception:  # noqa: BLE001 (pickle raises what it likes)
        notes = getattr(error, "__notes__", ())
        error = RuntimeError(f"{type(error).__name__}: {error}")
        for note in notes:
            error.add_note(note)
        pickled = pickle.dumps(CloudpickleWrapper(lambda: error))
    return pickled
