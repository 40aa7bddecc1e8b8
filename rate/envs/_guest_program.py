"""What runs under another Python: its simulators, spoken to by messages over a socket.

That Python has neither this package nor PyTorch; it has NumPy, and gymnasium or the old gym. So
this file imports nothing else, is written in the syntax of Python 3.8, and is run as a program:
`python _guest_program.py DESCRIPTOR`. The other side is `rate.envs._guest_pipe`, which imports this
module for the form of a message.

A message is the length of its JSON and that of its arrays (network order, 4 and 8 bytes), the JSON,
and the arrays one behind the other, of which `arrays` in the JSON gives name, dtype and shape. The
requests are those of `rate.envs._worker_process`:

    {"ask": "make", "protocol": 1, "env": NAME, "settings": {}, "max_steps": N, "rows": [0, 1]}
    {"ask": "reset", "seeds": [[ROW, SEED]]}            {"ask": "step", "rows": [0]}, and `actions`
    {"ask": "render", "row": 0}                         {"ask": "close"}

An answer is `{"done": ...}` with arrays, or `{"error": TRACEBACK}`; any number of `{"alive": true}`
may come before it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np

PROTOCOL = 1
SIZES = struct.Struct("!IQ")
ROOM = 1 << 20  # bytes on their way: some frames
KINDS = "biuf"  # of the numbers in arrays
CLOSING_TIME = 5.0


def encode(message: dict[str, Any], arrays: dict[str, Any] | None = None) -> list[Any]:
    """The parts of a message, which are to be sent one behind the other."""
    parts = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in parts.items()]
    text = json.dumps({**message, "arrays": described}).encode()
    flat: list[Any] = [array.reshape(-1).view(np.uint8) for array in parts.values()]
    data = [memoryview(array) for array in flat]
    return [SIZES.pack(len(text), sum(map(len, data))) + text, *data]


def decode(text: bytes, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The message and the arrays of what follows its sizes.

    Raises:
        ValueError: If that is no message.
    """
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("a message is no table")
    arrays, offset = {}, 0
    try:
        for name, kind, shape in message.pop("arrays"):
            dtype = np.dtype(kind)
            if dtype.kind not in KINDS:
                raise ValueError(f"an array of {kind}")
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
            offset += count * dtype.itemsize
    except (KeyError, TypeError) as error:
        raise ValueError(f"its arrays are not described: {error!r}") from error
    return message, arrays


def space_to_dict(space: Any) -> dict[str, Any]:
    """A space in the form that `rate.envs.spec` reads, whichever library it is of."""
    kind = type(space).__name__
    if kind == "Box":
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {"type": kind, "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if kind == "Discrete":
        return {"type": kind, "n": int(space.n), "start": int(getattr(space, "start", 0))}
    if kind == "MultiDiscrete":
        sizes = np.asarray(space.nvec)
        start = np.asarray(getattr(space, "start", np.zeros_like(sizes)))
        return {"type": kind, "nvec": sizes.tolist(), "start": start.tolist()}
    if kind == "MultiBinary":
        alone = not isinstance(space.n, (tuple, list, np.ndarray))
        return {"type": kind, "n": int(space.n) if alone else [int(size) for size in space.n]}
    if kind == "Dict":
        return {"type": kind, "spaces": {k: space_to_dict(s) for k, s in space.spaces.items()}}
    advice = "; make a Dict of it, whose parts have names" if kind == "Tuple" else ""
    raise ValueError(
        f"the space {kind} is not supported; use Box, Discrete, MultiDiscrete, MultiBinary or "
        f"Dict{advice}"
    )


def _bound(bound: Any) -> Any:
    flat = np.unique(bound).tolist()
    values = flat if len(flat) == 1 else np.asarray(bound).ravel().tolist()
    plain = [value if np.isfinite(value) else str(value) for value in values]
    return plain[0] if len(plain) == 1 else plain


def find(reference: str) -> Any:
    """What makes the environment of a name: a function of its settings.

    Raises:
        LookupError: If there is none.
    """
    module, colon, name = reference.partition(":")
    imported = importlib.import_module(module) if colon else None
    failures = []
    for library in ("gymnasium", "gym"):
        try:
            found = importlib.import_module(library)
            found.spec(name if colon else reference)
        except Exception as error:  # noqa: BLE001 (each version raises others)
            failures.append(f"{library}: {type(error).__name__}: {error}")
        else:
            return lambda **settings: _make(found, name if colon else reference, settings)
    if imported is not None and hasattr(imported, name.split(".")[0]):
        for part in name.split("."):
            imported = getattr(imported, part)
        return imported
    raise LookupError(f"no environment {reference!r} ({'; '.join(failures)})")


def _make(library: Any, name: str, settings: dict[str, Any]) -> Any:
    try:  # its checks fail with newer versions of NumPy, and older ones do not know the keyword
        return library.make(name, disable_env_checker=True, **settings)
    except TypeError:
        return library.make(name, **settings)


class Game:
    """An environment of either interface, seen as one of today's.

    Args:
        make: Makes it of its settings.
        settings: Keywords.
        max_steps: Steps after which an episode is truncated; None leaves that to the environment.
        draws: Whether pictures will be asked for.
    """

    def __init__(
        self, make: Any, settings: dict[str, Any], max_steps: int | None, draws: bool
    ) -> None:
        self.env = self._made(make, settings, draws)
        self.limit, self.steps, self.takes_seed = max_steps, 0, True
        wrapper, self.own_limit = self.env, None
        while wrapper is not None:
            told = vars(wrapper).get("_max_episode_steps")
            if isinstance(told, int) and self.own_limit is None:
                self.own_limit = told
                if max_steps is not None:
                    wrapper._max_episode_steps = max_steps
            inner = vars(wrapper).get("env")
            if inner is None and isinstance(vars(wrapper).get("max_steps"), int):
                self.own_limit = self.own_limit or wrapper.max_steps
            wrapper = inner

    def _made(self, make: Any, settings: dict[str, Any], draws: bool) -> Any:
        if draws:
            with contextlib.suppress(Exception):  # the old interface does not know it
                return make(render_mode="rgb_array", **settings)
        return make(**settings)

    def reset(self, seed: int) -> Any:
        """Begin the episode of a seed; returns the first observation."""
        self.steps = 0
        if self.takes_seed:
            try:
                return _observation(self.env.reset(seed=seed))
            except TypeError as error:
                if "seed" not in str(error):
                    raise
                if not hasattr(self.env, "seed"):
                    raise TypeError(
                        "the environment takes no seed, in reset() or seed()"
                    ) from error
                self.takes_seed = False
        self.env.seed(seed)
        return _observation(self.env.reset())

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action; returns observation, reward, terminated, truncated, info."""
        told = self.env.step(action)
        if len(told) == 4:  # the old interface has one flag for both ends
            observation, reward, done, info = told
            truncated = bool(done and info.pop("TimeLimit.truncated", False))
            terminated = bool(done) and not truncated
        else:
            observation, reward, terminated, truncated, info = told
        self.steps += 1
        if self.limit is not None and self.steps >= self.limit and not terminated:
            truncated = True
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """The picture of the environment, or None."""
        if getattr(self.env, "render_mode", None) is not None:
            return self.env.render()
        return self.env.render(mode="rgb_array")


def _observation(told: Any) -> Any:
    is_pair = isinstance(told, tuple) and len(told) == 2 and isinstance(told[1], dict)
    return told[0] if is_pair else told


def scalars(info: dict[str, Any]) -> dict[str, Any]:
    """The numbers and truth values in `info`, as Python's own."""
    kinds = (bool, int, float, np.bool_, np.integer, np.floating)
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in info.items()
        if isinstance(value, kinds)
    }


class Guest:
    """The environments of one process. Its methods are what may be asked for."""

    def __init__(self, send: Any) -> None:
        self.send = send
        self.games: dict[int, Game] = {}
        self.parts: dict[str, Any] = {}
        self.is_table = self.is_number = False

    def make(self, request: dict[str, Any], _: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Make an environment for each row; returns what it is."""
        if request["protocol"] != PROTOCOL:
            raise ValueError(f"the protocol is {PROTOCOL}, not {request['protocol']}")
        make = find(request["env"])
        for row in request["rows"]:
            settings, limit = request["settings"], request["max_steps"]
            self.games[row] = Game(make, settings, limit, request["draws"])
            self.send({"alive": True})
        game = self.games[request["rows"][0]]
        space = game.env.observation_space
        self.is_table = type(space).__name__ == "Dict"
        self.is_number = type(game.env.action_space).__name__ == "Discrete"
        self.parts = dict(space.spaces) if self.is_table else {"": space}
        versions = [sys.modules[name] for name in ("gymnasium", "gym") if name in sys.modules]
        known = {m.__name__: getattr(m, "__version__", "unknown") for m in versions}
        done = {
            "protocol": PROTOCOL,
            "observation_space": space_to_dict(space),
            "action_space": space_to_dict(game.env.action_space),
            "max_steps": game.own_limit,
            "versions": {"python": sys.version.split()[0], "numpy": np.__version__, **known},
        }
        return done, {}

    def reset(self, request: dict[str, Any], _: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; returns their observations."""
        observations = []
        for row, seed in request["seeds"]:
            observations.append(self.games[row].reset(seed))
            self.send({"alive": True})
        return {}, self._batch(observations)

    def step(self, request: dict[str, Any], arrays: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Step rows; returns what came of it, and what was told of those that end now."""
        observations, news, ended = [], [], {}
        for row, action in zip(request["rows"], arrays["actions"]):  # noqa: B905 (not in 3.8)
            chosen = int(action) if self.is_number else action.copy()
            observation, reward, terminated, truncated, info = self.games[row].step(chosen)
            observations.append(observation)
            news.append((reward, terminated, truncated))
            if terminated or truncated:
                ended[row] = scalars(info)
        told = np.array(news, dtype=np.float64).reshape(-1, 3)
        return {"ended": ended}, {**self._batch(observations), "rewards": told}

    def render(self, request: dict[str, Any], _: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The picture of a row."""
        image = self.games[request["row"]].render()
        return {}, {} if image is None else {"image": np.asarray(image)}

    def close(self) -> None:
        for game in self.games.values():
            with contextlib.suppress(Exception):
                game.env.close()

    def _batch(self, observations: list[Any]) -> dict[str, Any]:
        """Observations as arrays `(n, *shape)`, one for each part."""
        batch = {}
        for key, space in self.parts.items():
            values = [np.asarray(seen[key] if self.is_table else seen) for seen in observations]
            shape = tuple(space.shape or ())
            for value in values:
                if value.shape != shape or not np.can_cast(value.dtype, space.dtype, "same_kind"):
                    raise ValueError(
                        f"an observation {key} is {value.dtype} {value.shape}; its space says "
                        f"{space.dtype} {shape}"
                    )
            batch["obs/" + key] = np.stack(values) if values else np.zeros((0, *shape))
        return batch


def _receive(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = connection.recv_into(view[got:])
        if not count:
            raise EOFError
        got += count
    return data


def _watch(descriptor: int) -> None:
    """End the process if the other side is gone and a simulator does not come back."""
    hang_up = select.poll()
    hang_up.register(descriptor, 0)
    hang_up.poll()
    time.sleep(CLOSING_TIME)
    os.killpg(0, signal.SIGKILL)


def main(descriptor: int) -> None:
    """Answer requests until the other side says goodbye or is gone."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):  # are for the other side
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.set_inheritable(descriptor, False)
    os.dup2(2, 1)  # what a simulator prints is no output of the command that runs it
    threading.Thread(target=_watch, args=(descriptor,), daemon=True).start()
    connection = socket.socket(fileno=descriptor)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)

    def send(*message: Any) -> None:
        for part in encode(*message):
            connection.sendall(part)

    guest = Guest(send)
    with contextlib.suppress(EOFError, OSError):
        while True:
            sizes = SIZES.unpack(bytes(_receive(connection, SIZES.size)))
            request, arrays = decode(*(bytes(_receive(connection, size)) for size in sizes))
            if request["ask"] == "close":
                break
            try:
                done, found = getattr(guest, request["ask"])(request, arrays)
                guest.send({"done": done}, found)
            except Exception:  # noqa: BLE001 (whatever it is, the other side has to know)
                guest.send({"error": traceback.format_exc()})
    guest.close()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
