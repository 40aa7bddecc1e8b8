"""The program of a worker under another Python: serves its simulators over a socket.

The other Python has NumPy, and gymnasium or gym, but neither this package nor PyTorch. So this file
imports only NumPy, the standard library and the two modules that are executed before it, and uses
the syntax of Python 3.8. The parent's side is `rate.envs._guest_pipe`;
`rate.envs._guest_messages` describes the messages.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import traceback
from typing import Any

import numpy as np

from rate.envs._guest_messages import PROTOCOL, ROOM, SIZES, decode, encode, scalars, space_to_dict
from rate.workers.loop import ignore_stop_signals, serve


def find(reference: str) -> Any:
    """Returns the function that makes an environment from its settings.

    Args:
        reference: An id of gymnasium or gym, `module:id`, or the import path `module:function`.

    Raises:
        LookupError: If no such environment is found.
        ImportError: If the module cannot be imported.
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
    # The checker of some gym versions fails with newer NumPy; older versions lack the keyword.
    try:
        return library.make(name, disable_env_checker=True, **settings)
    except TypeError:
        return library.make(name, **settings)


class Game:
    """Adapts an environment of the gym or gymnasium interface to the gymnasium interface.

    Args:
        make: Makes the environment from its settings.
        settings: The keyword arguments of `make`.
        max_steps: Steps after which an episode is truncated; None keeps the environment's limit.
        draws: Whether `render` will be called.
    """

    def __init__(
        self, make: Any, settings: dict[str, Any], max_steps: int | None, draws: bool
    ) -> None:
        self.env = self._made(make, settings, draws)
        self.limit, self.steps, self.takes_seed = max_steps, 0, True
        wrapper, self.own_limit = self.env, None
        while wrapper is not None:
            limit = vars(wrapper).get("_max_episode_steps")
            if isinstance(limit, int) and self.own_limit is None:
                self.own_limit = limit
                if max_steps is not None:
                    wrapper._max_episode_steps = max_steps
            inner = vars(wrapper).get("env")
            if inner is None and isinstance(vars(wrapper).get("max_steps"), int):
                self.own_limit = self.own_limit or wrapper.max_steps
            wrapper = inner

    def _made(self, make: Any, settings: dict[str, Any], draws: bool) -> Any:
        if draws:
            with contextlib.suppress(Exception):  # gym's interface has no render_mode
                return make(render_mode="rgb_array", **settings)
        return make(**settings)

    def reset(self, seed: int) -> Any:
        """Start the episode of a seed. Returns the first observation.

        Raises:
            TypeError: If the environment accepts no seed.
        """
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
        """Take one action. Returns observation, reward, terminated, truncated and info."""
        result = self.env.step(action)
        if len(result) == 4:  # gym's interface has one flag for termination and truncation
            observation, reward, done, info = result
            truncated = bool(done and info.pop("TimeLimit.truncated", False))
            terminated = bool(done) and not truncated
        else:
            observation, reward, terminated, truncated, info = result
        self.steps += 1
        if self.limit is not None and self.steps >= self.limit and not terminated:
            truncated = True
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """Returns the image of the environment, or None."""
        if getattr(self.env, "render_mode", None) is not None:
            return self.env.render()
        return self.env.render(mode="rgb_array")


def _observation(result: Any) -> Any:
    is_pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
    return result[0] if is_pair else result


class Guest:
    """The environments of one process. Its public methods are the requests, but for `close`.

    Args:
        send: Sends a message; used for heartbeats.
    """

    def __init__(self, send: Any) -> None:
        self.send = send
        self.games: dict[int, Game] = {}
        self.parts: dict[str, Any] = {}
        self.is_table = self.is_number = False

    def make(self, request: dict[str, Any], _: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Make an environment for each row. Returns the description of the environments."""
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
        """Start episodes. Returns their first observations."""
        observations = []
        for row, seed in request["seeds"]:
            observations.append(self.games[row].reset(seed))
            self.send({"alive": True})
        return {}, self._batch(observations)

    def step(self, request: dict[str, Any], arrays: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Step rows.

        Returns:
            `{"ended": {row: scalars of the final info}}`, and the arrays: observations, and
            `rewards` `(n, 3)` of reward, terminated and truncated.
        """
        observations, results, ended = [], [], {}
        for row, action in zip(request["rows"], arrays["actions"]):  # noqa: B905 (not in 3.8)
            chosen = int(action) if self.is_number else action.copy()
            observation, reward, terminated, truncated, info = self.games[row].step(chosen)
            observations.append(observation)
            results.append((reward, terminated, truncated))
            if terminated or truncated:
                ended[row] = scalars(info)
        rewards = np.array(results, dtype=np.float64).reshape(-1, 3)
        return {"ended": ended}, {**self._batch(observations), "rewards": rewards}

    def render(self, request: dict[str, Any], _: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Returns the image of a row."""
        image = self.games[request["row"]].render()
        return {}, {} if image is None else {"image": np.asarray(image)}

    def close(self) -> None:
        for game in self.games.values():
            with contextlib.suppress(Exception):
                game.env.close()

    def _batch(self, observations: list[Any]) -> dict[str, Any]:
        """Returns observations as arrays `(n, *shape)`, one for each key.

        Raises:
            ValueError: If an observation does not have the shape and kind of its space.
        """
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


class _Connection:
    """Sends and receives messages over a socket."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)

    def send(self, message: dict[str, Any], arrays: dict[str, Any] | None = None) -> None:
        for part in encode(message, arrays):
            self._socket.sendall(part)

    def receive(self) -> tuple[dict[str, Any], dict[str, Any]]:
        sizes = SIZES.unpack(bytes(_receive(self._socket, SIZES.size)))
        text, data = (bytes(_receive(self._socket, size)) for size in sizes)
        return decode(text, data)


def main(descriptor: int) -> None:
    """Answer requests until the parent ends."""
    ignore_stop_signals()
    os.dup2(2, 1)  # simulators must not print to the standard output of the command
    connection = _Connection(descriptor)
    guest = Guest(connection.send)

    def answer(message: tuple[dict[str, Any], dict[str, Any]]) -> None:
        request, arrays = message
        try:
            done, found = getattr(guest, request["ask"])(request, arrays)
        except Exception:  # noqa: BLE001 (sent to the parent)
            connection.send({"error": traceback.format_exc()})
        else:
            connection.send({"done": done}, found)

    serve(descriptor, connection.receive, answer, guest.close)
