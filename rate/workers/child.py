"""The child's side of a worker process of the same Python: makes a service and calls its methods.

Messages are pickled tuples. A request is `(method of the service, argument)`; the first request is
`("make", (pickled function that makes the service, argument))`. An answer is `("done", value)`,
`("lost", reason)` if the service cannot continue, or `("error", pickled exception, traceback)`. Any
number of heartbeats, `("alive",)` or `("alive", note)`, may precede an answer.
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

_BEAT_S = 0.5  # least time between two heartbeats that are sent


class WorkerFailure(UserError):
    """A worker process could not make its service, or workers have died too often."""


class Service(Protocol):
    """The object in a worker process whose public methods the parent calls."""

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """The errors after which the process has to be replaced."""

    def make(self, argument: Any) -> Any:
        """Initialise the service. Returns the first answer to the parent."""

    def close(self) -> None:
        """Release the resources of the service."""


Beat = Callable[..., None]  # sends a heartbeat, and a note of progress if one is given


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

    def beat(self, *note: Any) -> None:
        """Send a heartbeat; one without a note at most every `_BEAT_S` seconds."""
        if (now := time.monotonic()) >= self._next_beat or note:
            self._next_beat = now + _BEAT_S
            self.pipe.send(("alive", *note))

    def close(self) -> None:
        if self._service is not None:
            self._service.close()

    def _call(self, method: str, argument: Any) -> tuple[Any, ...]:
        service: Any = self._service
        try:
            if method == "make":
                make, argument = argument
                service = self._service = pickle.loads(make).fn(self.beat)  # noqa: S301 (ours)
            return "done", getattr(service, method)(argument)
        except Exception as error:  # noqa: BLE001 (sent to the parent)
            if service is not None and method != "make" and isinstance(error, service.lost):
                return "lost", f"{type(error).__name__}: {error}"
            trace = traceback.format_exc()
            if service is None and not isinstance(error, UserError):
                error = WorkerFailure(f"a worker process cannot begin:\n{last_lines(trace)}")
            return "error", pickled(error), trace


def last_lines(trace: str, count: int = 6) -> str:
    """Returns the last `count` lines of a traceback."""
    return "\n".join(trace.strip().splitlines()[-count:])


def pickled(error: Exception) -> bytes:
    """Returns the pickled error; one that cannot be pickled becomes a `RuntimeError`."""
    try:
        data = pickle.dumps(CloudpickleWrapper(lambda: error))
        pickle.loads(data)  # noqa: S301 (our own)
    except Exception:  # noqa: BLE001 (pickle may raise any class)
        notes = getattr(error, "__notes__", ())
        error = RuntimeError(f"{type(error).__name__}: {error}")
        for note in notes:
            error.add_note(note)
        data = pickle.dumps(CloudpickleWrapper(lambda: error))
    return data
