"""The near side of a worker under another Python: requests and answers of `Worker` as messages.

The far side is `rate.envs._guest_program`, which describes the messages. Nothing is pickled: what
comes from there is plain values and arrays of numbers, which are written into the memory that the
rows of a `WorkerVector` share.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rate.envs import _guest_program
from rate.envs._guest_program import PROTOCOL, ROOM, SIZES, decode, encode
from rate.envs._shared_rows import Observation, SharedRows
from rate.envs._worker_handle import MessageError, Worker, WorkerDied
from rate.envs._worker_process import EnvironmentFailure
from rate.envs.spec import space_from_dict
from rate.errors import ConfigError

_LARGEST = 1 << 32  # bytes of a message: more is none
# Not run as a file: the folder of that would come first in its sys.path, and hide packages that are
# named as our modules are. So the working directory does, where a user's modules may stand.
_PROGRAM = """\
import sys
if sys.version_info < (3, 8):
    sys.exit(66)
try:
    import numpy
except ImportError:
    sys.exit(67)
with open(sys.argv[1], encoding="utf-8") as file:
    code = compile(file.read(), sys.argv[1], "exec")
sys.argv = sys.argv[1:]
exec(code)
"""


_UNFIT = {  # the exit codes above
    66: "it is older than Python 3.8",
    67: "it has no NumPy; install it there: {python} -m pip install numpy",
}


@dataclass(frozen=True)
class Elsewhere:
    """An environment that another Python makes.

    Attributes:
        python: That Python.
        env: The environment's name there: an id, or an import path.
        settings: Keywords for it, plain JSON types.
        max_steps: Steps after which an episode is truncated; None leaves it to the environment.
        draws: Whether it will be asked for pictures.
    """

    python: str
    env: str
    settings: dict[str, Any] = field(default_factory=dict)
    max_steps: int | None = None
    draws: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no program."""
        path = Path(str(self.python))
        if path.is_file() and os.access(path, os.X_OK):
            return
        found = next((p for p in (path / "bin/python", path / "python") if p.is_file()), None)
        hint = f"that folder's is {found}" if found else "it is the path of the program itself"
        raise ConfigError(
            f"env.python is {self.python}, which is no program that can be run; {hint}, for "
            "example /path/to/venv/bin/python."
        )

    def __str__(self) -> str:
        return f"{self.env} under {self.python}"


class GuestPipe:
    """A `multiprocessing` connection, as far as `Worker` needs one, that speaks by messages.

    Args:
        connection: A connected socket.
        memory: Descriptor of the memory that rows share.
        elsewhere: What the other side is to make.
        patience: Seconds that a message may take to be sent.
    """

    def __init__(
        self, connection: socket.socket, memory: int, elsewhere: Elsewhere, patience: float
    ) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        self._connection, self._memory, self._patience = connection, memory, patience
        self._elsewhere = elsewhere
        self._head, self._got = bytearray(SIZES.size), 0
        self._body: bytearray | None = None
        self._whole: deque[tuple[int, bytearray]] = deque()  # the length of the JSON, and all
        self._has_ended = False
        self._asked: deque[tuple[str, Any]] = deque()
        self._made: dict[str, Any] = {}
        self._board: SharedRows | None = None

    def send(self, request: tuple[str, Any] | None) -> None:
        """Send a request of `Worker`'s; None says goodbye."""
        if request is None:
            self._write({"ask": "close"})
            return
        method, argument = request
        self._asked.append(request)
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
        """Whether there is a whole message, or the end, within so many seconds."""
        deadline = time.monotonic() + timeout
        while not (self._has_ended or self._whole or self._is_here()):
            left = deadline - time.monotonic()
            if left <= 0 or not self._wait(select.POLLIN, left):
                return False
            self._read()
        return True

    def recv(self) -> tuple[Any, ...]:
        """The next answer, in the words of `rate.envs._worker_process`.

        Raises:
            EOFError: If the other side is gone.
            MessageError: If what came is no message.
        """
        if self._is_here():
            _, num_envs = self._asked.popleft()
            spaces = self._made["observation_space"], self._made["action_space"]
            self._board = SharedRows(self._memory, *spaces, num_envs)
            return "done", None
        if not self._whole:
            raise EOFError
        message, arrays = self._take()
        if "alive" in message:
            return ("alive",)
        method, argument = self._asked.popleft()
        if "error" in message:
            return "failed", f"{self._elsewhere}:\n{_tail(str(message['error']))}"
        try:
            return "done", self._done(method, argument, message["done"], arrays)
        except (LookupError, TypeError, ValueError) as error:
            raise MessageError(f"it answered {method} with something else: {error}") from error

    def close(self) -> None:
        """Let the connection go, and the shared memory."""
        self._connection.close()
        self._board = None

    def _done(self, method: str, argument: Any, done: Any, arrays: dict[str, Any]) -> Any:
        if method == "make":
            if done["protocol"] != PROTOCOL:
                raise ValueError(f"protocol {done['protocol']}, not {PROTOCOL}")
            spaces = {n: space_from_dict(done[n]) for n in ("observation_space", "action_space")}
            told = {"name": str(self._elsewhere), "metadata": dict[str, Any](), "render_mode": None}
            self._made = {**done, **spaces, **told}
            return self._made
        if method == "render":
            return arrays.get("image")
        board, rows = self._shared, list(argument)
        _write_rows(board.observations, rows, arrays)
        if method == "reset":
            board.rewards[rows] = board.terminated[rows] = board.truncated[rows] = 0
            return {}
        news = arrays["rewards"]
        board.rewards[rows] = news[:, 0]
        board.terminated[rows], board.truncated[rows] = news[:, 1] != 0, news[:, 2] != 0
        return {int(row): outcomes for row, outcomes in done["ended"].items()}

    @property
    def _shared(self) -> SharedRows:
        if self._board is None:
            raise RuntimeError("a worker was asked for episodes before it knew where to put them")
        return self._board

    def _is_here(self) -> bool:
        """Whether the next answer is here already, without the other side."""
        return bool(self._asked) and self._asked[0][0] == "share"

    def _take(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The oldest message that is whole."""
        size, body = self._whole.popleft()
        view = memoryview(body)
        try:
            return decode(bytes(view[:size]), view[size:])
        except ValueError as error:
            raise MessageError(f"it sent something that is no message: {error}") from error

    def _read(self) -> None:
        """Read some of the message that is coming in."""
        part = self._head if self._body is None else self._body
        try:
            count = self._connection.recv_into(memoryview(part)[self._got :])
        except BlockingIOError:
            return
        except ConnectionError:
            count = 0
        self._has_ended = not count
        self._got += count
        if self._got < len(part):
            return
        text, data = SIZES.unpack(self._head)
        if self._body is None:
            if text + data > _LARGEST:
                raise MessageError("it sent something that is no message")
            self._body = bytearray(text + data)
        else:
            self._whole.append((text, self._body))
            self._body = None
        self._got = 0

    def _write(self, message: dict[str, Any], arrays: dict[str, Any] | None = None) -> None:
        """Send a message, and read meanwhile: the other side may wait to be rid of an answer."""
        view = memoryview(b"".join(encode(message, arrays)))
        deadline = time.monotonic() + self._patience
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
        rows: The rows, consecutive.
        elsewhere: What it makes, and where.
        memory: Descriptor of the shared memory.
        timeout: Seconds without an answer after which it counts as dead.
    """

    def __init__(self, rows: range, elsewhere: Elsewhere, memory: int, timeout: float) -> None:
        self._elsewhere = elsewhere
        super().__init__(rows, b"", memory, timeout)

    def _launch(self) -> tuple[Any, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        program = str(Path(_guest_program.__file__))
        environment = {k: v for k, v in os.environ.items() if k not in _OURS}
        with theirs:
            process = subprocess.Popen(
                [self._elsewhere.python, "-c", _PROGRAM, program, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={**environment, "OMP_NUM_THREADS": "1"},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return GuestPipe(ours, self._memory, self._elsewhere, self._timeout), process

    def _receive(self) -> tuple[Any, ...]:
        try:
            return super()._receive()
        except WorkerDied:
            python, code = self._elsewhere.python, self._process.poll()
            if code not in _UNFIT:
                raise
            why = _UNFIT[code].format(python=python)
            raise EnvironmentFailure(f"{python} cannot run simulators: {why}.") from None


# Variables that say where our Python has its own packages.
_OURS = ("PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def _write_rows(board: Observation, rows: list[int], arrays: dict[str, Any]) -> None:
    """Store the observations `(n, *shape)` of `n` rows.

    Raises:
        ValueError: If they are not of the space's shape and kind.
    """
    for key, array in (board if isinstance(board, dict) else {"": board}).items():
        values = arrays[f"obs/{key}"]
        if values.shape != (len(rows), *array.shape[1:]):
            raise ValueError(f"observations {values.shape} of {len(rows)} rows")
        array[rows] = values.astype(array.dtype, casting="same_kind", copy=False)


def _tail(trace: str) -> str:
    return "\n".join(trace.strip().splitlines()[-8:])
