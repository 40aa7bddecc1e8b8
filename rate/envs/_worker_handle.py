"""The parent's side of a worker process of `WorkerVector`: start, ask, wait, end."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from typing import Any

import numpy as np
import numpy.typing as npt

from rate.envs._worker_process import CLOSING_TIME, EnvironmentFailure

# Seconds that a process has at least for its imports and each environment: a cold disk is no hang.
_STARTING_TIME = 60.0
_FEW_CORES = 3  # to leave one of them to the policy would cost more than it gains

# Not multiprocessing.Process: it runs the user's script once more in the child, which imports torch
# there (seconds, and gigabytes over all workers) and needs an `if __name__ == "__main__"`.
_PROGRAM = """\
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = {path!r}
from rate.stopping import ignore_stop_signals
ignore_stop_signals()
from rate.envs._worker_process import main
main({connection}, {memory})
"""


class MessageError(OSError):
    """What came from a worker is no message."""


class WorkerDied(Exception):
    """A worker is no more; the message says what happened to it."""


class _InWorker(Exception):
    """The traceback in the worker, as the cause of an exception that is raised again here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Worker:
    """A worker process and the rows it steps.

    Args:
        rows: The rows, consecutive.
        make_env: Pickled `CloudpickleWrapper` of the function that makes an environment.
        memory: Descriptor of the shared memory.
        timeout: Seconds without an answer after which a worker counts as dead.
    """

    def __init__(self, rows: range, make_env: bytes, memory: int, timeout: float) -> None:
        self.rows = rows
        self._make_env, self._memory, self._timeout = make_env, memory, timeout
        self._owner = os.getpid()
        self._death: str | None = None
        self._limit, self._deadline = timeout, 0.0
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start the process and ask it to make its environments; `answer` waits for that."""
        self._pipe, self._process = self._launch()
        self._death = None
        self.ask("make", (self._make_env, self.rows))

    def _launch(self) -> tuple[Any, subprocess.Popen[bytes]]:
        """A new process, and what it is spoken to through."""
        ours, theirs = Pipe()
        program = _PROGRAM.format(path=sys.path, connection=theirs.fileno(), memory=self._memory)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                pass_fds=(theirs.fileno(), self._memory),
                start_new_session=True,
            )
        return ours, process

    def ask(self, method: str, argument: Any = None) -> None:
        """Send a request; a worker that is gone is noticed by `answer`."""
        self._limit = max(self._timeout, _STARTING_TIME) if method == "make" else self._timeout
        self._deadline = time.monotonic() + self._limit
        with contextlib.suppress(OSError):
            self._pipe.send((method, argument))

    def answer(self) -> Any:
        """Wait for the answer to the oldest request that has none.

        Raises:
            WorkerDied: If there is none.
            Exception: What was raised in the worker.
        """
        kind, *content = self._receive()
        while kind == "alive":
            kind, *content = self._receive()
        if kind == "lost":
            raise WorkerDied(self.kill(content[0]))
        if kind == "failed":
            raise EnvironmentFailure(content[0])
        if kind == "error":
            pickled, trace = content
            raise pickle.loads(pickled).fn() from _InWorker(trace)  # noqa: S301 (our own worker)
        return content[0]

    def _receive(self) -> tuple[Any, ...]:
        if self._death is not None:
            raise WorkerDied(self._death)
        try:
            if not self._pipe.poll(max(0.0, self._deadline - time.monotonic())):
                raise WorkerDied(self.kill(f"it did not answer within {self._limit:g} seconds"))
            message: tuple[Any, ...] = self._pipe.recv()
            self._deadline = time.monotonic() + self._limit
        except MessageError as error:
            raise WorkerDied(self.kill(str(error))) from None
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSING_TIME)
            raise WorkerDied(self.kill(_cause(self._process.poll()))) from None
        return message

    def kill(self, why: str) -> str:
        """End the process and what it started, at once; returns `why`."""
        if self._death is not None:  # its number may be another process's by now
            return self._death
        self._death = why
        self._pipe.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return why


def close_workers(workers: list[Worker]) -> None:
    """Let the workers close their environments and end; those that take too long are killed."""
    # A fork of the parent (a data loader's worker, say) has copies of these, but no say over them.
    workers = [worker for worker in workers if worker._owner == os.getpid()]
    for worker in workers:
        with contextlib.suppress(OSError):
            worker._pipe.send(None)
    deadline = time.monotonic() + CLOSING_TIME
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker._process.wait(max(0.0, deadline - time.monotonic()))
        worker.kill("it was closed")


def chunks(num_envs: int, num_workers: int | None) -> list[range]:
    """The rows of each worker; see `WorkerVector` for how many there are by default.

    Raises:
        ValueError: If there is nothing to split, or nobody to split it between.
    """
    if num_workers is None:
        usable = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if usable else os.cpu_count() or 1
        num_workers = cores - 1 if cores > _FEW_CORES else cores
    if num_envs < 1 or num_workers < 1:
        raise ValueError(f"{num_envs} rows in {num_workers} workers: at least one of each")
    num_workers = min(num_workers, num_envs)
    borders = [worker * num_envs // num_workers for worker in range(num_workers + 1)]
    return [range(*pair) for pair in itertools.pairwise(borders)]


class Outcomes:
    """The scalars that came with the ends of episodes, the last known of each row."""

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self._values: dict[str, list[Any]] = {}

    def note(self, ended: dict[int, dict[str, Any]]) -> None:
        """Keep `{row: {key: scalar}}`."""
        for row, outcomes in ended.items():
            for key, value in outcomes.items():
                self._values.setdefault(key, [None] * self._num_envs)[row] = value

    def forget(self, row: int) -> None:
        for values in self._values.values():
            values[row] = None

    def arrays(self, rows: slice = slice(None)) -> dict[str, npt.NDArray[Any]]:
        """`(N,)` values under each key that one of the rows knows, and under `_key` which do."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for key, all_values in self._values.items():
            values = all_values[rows]
            known = [value for value in values if value is not None]
            if known:
                truth = all(isinstance(value, bool) for value in known)
                blank, dtype = (False, np.bool_) if truth else (np.nan, np.float64)
                filled = [blank if value is None else value for value in values]
                arrays[key] = np.array(filled, dtype=dtype)
                arrays[f"_{key}"] = np.array([value is not None for value in values])
        return arrays


def _cause(code: int | None) -> str:
    """How a process ended, from its return code."""
    if code is None:
        return "it closed its pipe"
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (by the system, if it ran out of memory)" if -code == signal.SIGKILL else ""
    return f"it was killed by {name}{hint}"
