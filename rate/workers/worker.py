"""The parent's side of one worker process: start, send requests, wait for answers, end."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper

from rate.errors import ConfigError
from rate.workers.child import Beat, Service, WorkerFailure
from rate.workers.loop import CLOSING_TIME

TIMEOUT_S = 120.0  # without an answer or a heartbeat
# Least time limit for the imports of a process and for making each simulator: a cold disk is slow.
STARTING_S = 60.0
_POLL_S = 1.0

# Not multiprocessing.Process: it imports the user's script in the child, hence torch (seconds, and
# gigabytes over all workers), and the script needs an `if __name__ == "__main__"`.
_PROGRAM = """\
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = {path!r}
from rate.workers.loop import ignore_stop_signals
ignore_stop_signals()
from rate.workers.child import main
main({connection})
"""


class MessageError(OSError):
    """A worker sent bytes that are not a valid message."""


class WorkerDied(Exception):
    """A worker process has ended or was killed; the message is the cause."""


class _InWorker(Exception):
    """The traceback in the worker; the cause of its exception when that is raised again here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Worker:
    """A worker process that makes a service and calls its methods.

    Args:
        make_service: Takes the function that sends a heartbeat and returns the service. Pickled
            with cloudpickle, so that lambdas and functions defined in a notebook are allowed.
        argument: The argument of the service's `make`, whose result is the first answer.
        timeout: Seconds without an answer or a heartbeat after which the worker counts as hung.
        descriptors: Descriptors of open files that the process inherits.

    Attributes:
        note: What came with the last heartbeat, or None.

    Raises:
        ConfigError: On Windows.
    """

    def __init__(
        self,
        make_service: Callable[[Beat], Service],
        argument: Any = None,
        timeout: float = TIMEOUT_S,
        descriptors: Sequence[int] = (),
    ) -> None:
        if os.name != "posix":
            raise ConfigError("worker processes need Linux, macOS, or WSL on Windows")
        self._request = (
            pickle.dumps(CloudpickleWrapper(make_service)),  # type: ignore[arg-type]
            argument,
        )
        self._timeout, self._descriptors = timeout, tuple(descriptors)
        self._owner = os.getpid()
        self._death: str | None = None
        self.note: Any = None
        self._limit, self._deadline = timeout, 0.0
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def connection(self) -> Any:
        """The connection, for `multiprocessing.connection.wait`."""
        return self._pipe

    @property
    def is_late(self) -> bool:
        """Whether the process has ended or exceeded its time limit; `take` does not wait then."""
        return self._process.poll() is not None or time.monotonic() > self._deadline

    def start(self) -> None:
        """Start the process and request its service; `answer` returns the result of `make`."""
        self._pipe, self._process = self._launch()
        self._death = None
        self.ask("make", self._request, max(self._timeout, STARTING_S))

    def _launch(self) -> tuple[Any, subprocess.Popen[bytes]]:
        """Returns the connection to a new process, and the process."""
        parent, child = Pipe()
        path = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100 (it may not exist)
        program = _PROGRAM.format(path=path, connection=child.fileno())
        with child:
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                pass_fds=(child.fileno(), *self._descriptors),
                start_new_session=True,
            )
        return parent, process

    def ask(self, method: str, argument: Any = None, limit: float | None = None) -> None:
        """Send a request. If the worker is dead, this has no effect and `answer` raises.

        Args:
            method: The name of the service's method.
            argument: Its argument, picklable.
            limit: Seconds without an answer or a heartbeat; by default the worker's `timeout`.
        """
        self._limit = limit or self._timeout
        self._deadline = time.monotonic() + self._limit
        with contextlib.suppress(OSError):
            self._pipe.send((method, argument))

    def answer(self) -> Any:
        """Wait for the answer to the oldest unanswered request and return it.

        Raises:
            WorkerDied: If the worker died or exceeded its time limit.
            Exception: The exception that the method raised in the worker.
        """
        while (answer := self.take()) is None:
            pass
        return answer[0]

    def take(self) -> tuple[Any] | None:
        """Wait for the next message. Returns the answer in a 1-tuple, or None for a heartbeat.

        Raises:
            WorkerDied: If the worker died or exceeded its time limit.
            Exception: The exception that the method raised in the worker.
        """
        kind, *content = self._receive()
        if kind == "alive":
            self.note = content[0] if content else None
            return None
        if kind == "lost":
            raise WorkerDied(self.kill(content[0]))
        if kind == "failed":
            raise WorkerFailure(content[0])
        if kind == "error":
            pickled, trace = content
            raise pickle.loads(pickled).fn() from _InWorker(trace)  # noqa: S301 (our own worker)
        return (content[0],)

    def _receive(self) -> tuple[Any, ...]:
        if self._death is not None:
            raise WorkerDied(self._death)
        try:
            self._wait()
            message: tuple[Any, ...] = self._pipe.recv()
            self._deadline = time.monotonic() + self._limit
        except MessageError as error:
            raise WorkerDied(self.kill(str(error))) from None
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSING_TIME)
            raise WorkerDied(self.kill(describe_exit(self._process.poll()))) from None
        return message

    def _wait(self) -> None:
        """Wait for a message.

        Raises:
            EOFError: If the process has ended.
            WorkerDied: If the time limit is exceeded.
        """
        while not self._pipe.poll(min(_POLL_S, max(0.0, self._deadline - time.monotonic()))):
            if self._process.poll() is not None and not self._pipe.poll(0):
                raise EOFError  # a child of a dead worker may hold its end of the pipe open
            if time.monotonic() > self._deadline and not self._pipe.poll(0):
                raise WorkerDied(self.kill(f"it did not answer within {self._limit:g} seconds"))

    def stop(self) -> None:
        """Send SIGTERM to the process, which may save its state before it ends."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """End the process; see `close_workers`."""
        close_workers([self])

    def use_own_limit(self) -> None:
        """Replace the `limit` of `ask` by the worker's `timeout`, counted from now."""
        self._limit = self._timeout
        self._deadline = time.monotonic() + self._limit

    def kill(self, why: str) -> str:
        """Kill the process group. Returns `why`, or the cause of an earlier death."""
        if self._death is not None:  # another process may have its id now
            return self._death
        self._death = why
        self._pipe.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return why


def close_workers(workers: Sequence[Worker]) -> None:
    """End the workers with SIGTERM; those that take longer than `CLOSING_TIME` are killed."""
    # A fork of the parent, such as a data loader's worker, has copies but must not end them.
    workers = [w for w in workers if w._owner == os.getpid() and w._death is None]
    for worker in workers:
        worker._process.terminate()
    deadline = time.monotonic() + CLOSING_TIME
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker._process.wait(max(0.0, deadline - time.monotonic()))
        worker.kill("it was closed")


def describe_exit(code: int | None) -> str:
    """Returns the cause of death of a process, from its return code (None: it still runs)."""
    if code is None:
        return "it closed its pipe"
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hints = {"SIGKILL": " (by the system, if memory ran out)", "SIGSEGV": " (segmentation fault)"}
    return f"it was killed by {name}{hints.get(name, '')}"
