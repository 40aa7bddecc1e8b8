"""The worker's side of `WorkerVector`: a process that steps some rows.

This module is what a worker imports before anything else: keep it free of torch and of whatever is
slow to load. The protocol is a pickled tuple each way. A request is `(method of Rows, argument)`;
the answer is `("done", value)`, `("lost", why)` if the simulator gave up, or `("error", pickled
exception, traceback)`. Any number of `("alive",)` may come before it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from rate.envs._shared_rows import SharedRows
from rate.errors import UserError

# Seconds that a worker has for closing its environments once the parent is gone.
CLOSING_TIME = 5.0


class EnvironmentFailure(UserError):
    """A simulator could not be started, or died more often than is bearable."""


class Rows:
    """The environments of one worker. Its public methods are what the parent may ask for."""

    def __init__(self, memory: int, beat: Callable[[], None]) -> None:
        self._memory, self._beat = memory, beat
        self._envs: dict[int, gymnasium.Env[Any, Any]] = {}
        self._shared: SharedRows | None = None

    def make(self, task: tuple[bytes, range]) -> dict[str, Any]:
        """Make an environment for each row of `(pickled make_env, rows)`; returns what it is."""
        pickled, rows = task
        make_env = pickle.loads(pickled).fn  # noqa: S301 (comes from our own parent)
        for row in rows:
            self._envs[row] = make_env()
            self._beat()
        env = self._envs[rows[0]]
        return {
            "name": env.spec.id if env.spec else type(env.unwrapped).__name__,
            "observation_space": env.observation_space,
            "action_space": env.action_space,
            "metadata": dict(env.metadata),
            "render_mode": env.render_mode,
        }

    def share(self, num_envs: int) -> None:
        """Map the memory of all `num_envs` rows."""
        env = next(iter(self._envs.values()))
        self._shared = SharedRows(self._memory, env.observation_space, env.action_space, num_envs)

    def reset(self, seeds: dict[int, int]) -> dict[int, Any]:
        """Begin episodes of the given `{row: seed}`."""
        shared = self._board
        for row, seed in seeds.items():
            observation, _ = self._envs[row].reset(seed=seed)
            shared.write(row, observation)
            shared.rewards[row], shared.terminated[row], shared.truncated[row] = 0, False, False
            self._beat()
        return {}

    def step(self, rows: list[int]) -> dict[int, dict[str, Any]]:
        """Step rows that are not finished; returns `{row: outcomes}` of those that end now."""
        shared = self._board
        ended = {}
        for row in rows:
            action = shared.actions[row].copy()  # an environment may keep it
            observation, reward, terminated, truncated, info = self._envs[row].step(action)
            shared.write(row, observation)
            shared.rewards[row] = reward
            shared.terminated[row], shared.truncated[row] = terminated, truncated
            if terminated or truncated:
                ended[row] = scalars(info)
        return ended

    def render(self, row: int) -> Any:
        return self._envs[row].render()

    def close(self) -> None:
        for env in self._envs.values():
            with contextlib.suppress(Exception):  # the others are to be closed as well
                env.close()

    @property
    def _board(self) -> SharedRows:
        if self._shared is None:
            raise RuntimeError("a worker was asked for episodes before it knew where to put them")
        return self._shared


def scalars(info: dict[str, Any]) -> dict[str, Any]:
    """The numbers and truth values in `info`, as Python's own."""
    kinds = (bool, int, float, np.bool_, np.integer, np.floating)
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in info.items()
        if isinstance(value, kinds)
    }


def main(connection: int, memory: int) -> None:
    """Answer the parent until it says goodbye or is gone; then end, and all children with it.

    The process leads a session of its own: Ctrl+C in the terminal is the parent's business, and
    engines that a simulator has started can be ended together with it.
    """
    from multiprocessing.connection import Connection  # not on Windows

    for descriptor in (connection, memory):
        os.set_inheritable(descriptor, False)  # an engine must not keep our end of the pipe open
    threading.Thread(target=_watch, args=(connection,), daemon=True).start()
    pipe = Connection(connection)
    rows = Rows(memory, beat=lambda: pipe.send(("alive",)))
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while (request := pipe.recv()) is not None:
            pipe.send(_answer(rows, *request))
    rows.close()
    sys.stdout.flush()
    os.killpg(0, signal.SIGKILL)


def _answer(rows: Rows, method: str, argument: Any) -> tuple[Any, ...]:
    try:
        return "done", getattr(rows, method)(argument)
    except Exception as error:  # noqa: BLE001 (whatever it is, the parent has to know)
        if isinstance(error, UserError) and method != "make":
            return "lost", f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
        if method == "make" and not isinstance(error, UserError):
            tail = "\n".join(trace.strip().splitlines()[-6:])
            error = EnvironmentFailure(f"an environment could not be made:\n{tail}")
        return "error", _pickled(error), trace


def _pickled(error: Exception) -> bytes:
    """The error, or one that says the same if it does not survive the journey."""
    try:
        pickled = pickle.dumps(CloudpickleWrapper(lambda: error))
        pickle.loads(pickled)  # noqa: S301 (our own)
    except Exception:  # noqa: BLE001 (pickle raises what it likes)
        error = RuntimeError(f"{type(error).__name__}: {error}")
        pickled = pickle.dumps(CloudpickleWrapper(lambda: error))
    return pickled


def _watch(connection: int) -> None:
    """End the process if the parent is gone and a simulator does not come back."""
    hang_up = select.poll()
    hang_up.register(connection, 0)
    hang_up.poll()
    time.sleep(CLOSING_TIME)
    os.killpg(0, signal.SIGKILL)
