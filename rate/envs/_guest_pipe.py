"""The parent's side of a worker under another Python: translates `Worker`'s requests and answers.

The child's side is `rate.envs._guest_program`; `rate.envs._guest_messages` describes the messages.
Nothing is pickled: messages contain plain values and numeric arrays. The arrays are written into
the shared buffers of a `WorkerVectorEnv`.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections import deque
from typing import Any

from rate.envs import _guest_messages, _guest_program
from rate.envs._elsewhere import Elsewhere
from rate.envs._guest_messages import PROTOCOL, ROOM, SIZES, decode, encode
from rate.envs._shared_buffers import Observation, SharedBuffers
from rate.envs.spec import space_from_dict
from rate.workers import loop
from rate.workers.child import WorkerFailure, last_lines
from rate.workers.worker import MessageError, Worker, WorkerDied

_LARGEST = 1 << 32  # bytes; a larger size is an invalid message
# The modules that the other Python executes, in the order of their imports.
_MODULES = (loop, _guest_messages, _guest_program)
# Run with -c and not as a file, whose folder would be first in sys.path and hide packages that have
# the names of modules in it. With -c the working directory is first, where users have modules.
_PROGRAM = """\
import sys, types
if sys.version_info < (3, 8):
    sys.exit(66)
try:
    import numpy
except ImportError:
    sys.exit(67)
descriptor, *sent = sys.argv[1:]
for name, path in zip(sent[::2], sent[1::2]):
    module = sys.modules[name] = types.ModuleType(name)
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
del sys.argv[2:]
module.main(int(descriptor))
"""


_UNFIT = {  # reasons by the exit codes above
    66: "it is older than Python 3.8",
    67: "it has no NumPy; install it there: {python} -m pip install numpy",
}


class GuestPipe:
    """A connection with the interface that `Worker` uses, which sends and receives messages.

    Args:
        connection: A connected socket.
        memory: Descriptor of the shared memory.
        elsewhere: The environment, and the Python that makes it.
        patience: Time limit for sending a message, in seconds.
    """

    def __init__(
        self, connection: socket.socket, memory: int, elsewhere: Elsewhere, patience: float
    ) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        self._connection, self._memory, self._timeout = connection, memory, patience
        self._elsewhere = elsewhere
        self._head, self._received = bytearray(SIZES.size), 0
        self._body: bytearray | None = None
        self._complete: deque[tuple[int, bytearray]] = deque()  # size of the JSON, message
        self._has_ended = False
        self._pending: deque[tuple[str, Any]] = deque()
        self._made: dict[str, Any] = {}
        self._buffers: SharedBuffers | None = None

    def send(self, request: tuple[str, Any]) -> None:
        """Send a request of `Worker`, `(method, argument)`.

        Raises:
            BrokenPipeError: If the connection is closed or sending takes longer than `patience`.
        """
        method, argument = request
        self._pending.append(request)
        if method == "make":
            there = self._elsewhere
            task = {"env": there.env, "settings": there.settings, "draws": there.draws}
            task |= {"max_steps": there.max_steps, "protocol": PROTOCOL, "rows": list(argument[1])}
            self._write({"ask": method, **task})
        elif method == "reset":
            self._write({"ask": method, "seeds": list(argument.items())})
        elif method == "step":
            actions = self._shared.actions[argument]
            self._write({"ask": method, "rows": argument}, {"actions": actions})
        elif method == "render":
            self._write({"ask": method, "row": argument})

    def poll(self, timeout: float) -> bool:
        """Whether a complete message or the end of the connection arrives within `timeout` s."""
        deadline = time.monotonic() + timeout
        while not (self._has_ended or self._complete or self._is_local()):
            left = deadline - time.monotonic()
            if left <= 0 or not self._wait(select.POLLIN, left):
                return False
            self._read()
        return True

    def recv(self) -> tuple[Any, ...]:
        """Returns the next answer in the form that `rate.workers.child` sends, after `poll`.

        Raises:
            EOFError: If the other process has closed the connection.
            MessageError: If a message is not valid.
        """
        if self._is_local():
            _, num_envs = self._pending.popleft()
            spaces = self._made["observation_space"], self._made["action_space"]
            self._buffers = SharedBuffers(self._memory, *spaces, num_envs)
            return "done", None
        if not self._complete:
            raise EOFError
        message, arrays = self._take()
        if "alive" in message:
            return ("alive",)
        method, argument = self._pending.popleft()
        if "error" in message:
            kind = "failed" if method == "make" else "lost"  # its episodes are repeated
            return kind, f"{self._elsewhere}:\n{last_lines(str(message['error']), 8)}"
        try:
            return "done", self._done(method, argument, message["done"], arrays)
        except (LookupError, TypeError, ValueError) as error:
            raise MessageError(f"it answered {method} with something else: {error}") from error

    def close(self) -> None:
        """Close the connection and drop the shared memory."""
        self._connection.close()
        self._buffers = None

    def _done(self, method: str, argument: Any, done: Any, arrays: dict[str, Any]) -> Any:
        if method == "make":
            if done["protocol"] != PROTOCOL:
                raise ValueError(f"protocol {done['protocol']}, not {PROTOCOL}")
            spaces = {n: space_from_dict(done[n]) for n in ("observation_space", "action_space")}
            identity = {
                "name": str(self._elsewhere),
                "metadata": dict[str, Any](),
                "render_mode": None,
            }
            self._made = {**done, **spaces, **identity}
            return self._made
        if method == "render":
            return arrays.get("image")
        buffers, rows = self._shared, list(argument)
        _write_rows(buffers.observations, rows, arrays)
        if method == "reset":
            buffers.rewards[rows] = buffers.terminated[rows] = buffers.truncated[rows] = 0
            return {}
        ends = arrays["rewards"]
        buffers.rewards[rows] = ends[:, 0]
        buffers.terminated[rows], buffers.truncated[rows] = ends[:, 1] != 0, ends[:, 2] != 0
        return {int(row): outcomes for row, outcomes in done["ended"].items()}

    @property
    def _shared(self) -> SharedBuffers:
        if self._buffers is None:
            raise RuntimeError("a worker was asked for episodes before it knew where to put them")
        return self._buffers

    def _is_local(self) -> bool:
        """Whether the next request is `share`, which is answered without the other process."""
        return bool(self._pending) and self._pending[0][0] == "share"

    def _take(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the oldest complete message: its JSON object and arrays."""
        size, body = self._complete.popleft()
        view = memoryview(body)
        try:
            return decode(bytes(view[:size]), view[size:])
        except ValueError as error:
            raise MessageError(f"it sent something that is no message: {error}") from error

    def _read(self) -> None:
        """Read available bytes of the current incoming message."""
        part = self._head if self._body is None else self._body
        try:
            count = self._connection.recv_into(memoryview(part)[self._received :])
        except BlockingIOError:
            return
        except ConnectionError:
            count = 0
        self._has_ended = not count
        self._received += count
        if self._received < len(part):
            return
        text, data = SIZES.unpack(self._head)
        if self._body is None:
            if text + data > _LARGEST:
                raise MessageError("it sent something that is no message")
            self._body = bytearray(text + data)
        else:
            self._complete.append((text, self._body))
            self._body = None
        self._received = 0

    def _write(self, message: dict[str, Any], arrays: dict[str, Any] | None = None) -> None:
        """Send a message, and read meanwhile: the other process may block on sending an answer."""
        view = memoryview(b"".join(encode(message, arrays)))
        deadline = time.monotonic() + self._timeout
        while view:
            ready = self._wait(select.POLLIN | select.POLLOUT, deadline - time.monotonic())
            if not ready or self._has_ended:
                raise BrokenPipeError("the other side does not listen")
            if ready & select.POLLOUT:
                view = view[self._connection.send(view) :]
            else:
                self._read()

    def _wait(self, events: int, timeout: float) -> int:
        if self._connection.fileno() < 0:
            raise BrokenPipeError("the connection is closed")
        poller = select.poll()
        poller.register(self._connection, events)
        return next((event for _, event in poller.poll(max(0.0, timeout) * 1000)), 0)


class GuestWorker(Worker):
    """A worker under another Python; see `Worker`.

    Args:
        rows: The consecutive rows that it steps.
        elsewhere: The environment, and the Python that makes it.
        memory: Descriptor of the shared memory.
        timeout: Seconds without an answer after which the worker counts as dead.
    """

    def __init__(self, rows: range, elsewhere: Elsewhere, memory: int, timeout: float) -> None:
        self.rows, self._elsewhere, self._memory = rows, elsewhere, memory
        super().__init__(_no_service, rows, timeout)

    def _launch(self) -> tuple[Any, subprocess.Popen[bytes]]:
        parent, child = socket.socketpair()
        sent = [part for module in _MODULES for part in (module.__name__, str(module.__file__))]
        environment = {k: v for k, v in os.environ.items() if k not in _OURS}
        with child:
            process = subprocess.Popen(
                [self._elsewhere.python, "-c", _PROGRAM, str(child.fileno()), *sent],
                stdin=subprocess.DEVNULL,
                env={**environment, "OMP_NUM_THREADS": "1"},
                pass_fds=(child.fileno(),),
                start_new_session=True,
            )
        return GuestPipe(parent, self._memory, self._elsewhere, self._timeout), process

    def _receive(self) -> tuple[Any, ...]:
        try:
            return super()._receive()
        except WorkerDied:
            python, code = self._elsewhere.python, self._process.poll()
            if code not in _UNFIT:
                raise
            why = _UNFIT[code].format(python=python)
            raise WorkerFailure(f"{python} cannot run simulators: {why}.") from None


def _no_service(_: Any) -> Any:
    """Placeholder for `make_service`: the guest program makes its service itself."""


# Variables that locate the packages of this Python, which the other one must not inherit.
_OURS = ("PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def _write_rows(buffers: Observation, rows: list[int], arrays: dict[str, Any]) -> None:
    """Store the observations `(n, *shape)` of `n` rows.

    Raises:
        KeyError: If the array of an observation is missing.
        TypeError: If its kind is not that of the space.
        ValueError: If its shape is not that of the space.
    """
    for key, array in (buffers if isinstance(buffers, dict) else {"": buffers}).items():
        values = arrays[f"obs/{key}"]
        if values.shape != (len(rows), *array.shape[1:]):
            raise ValueError(f"observations {values.shape} of {len(rows)} rows")
        array[rows] = values.astype(array.dtype, casting="same_kind", copy=False)
