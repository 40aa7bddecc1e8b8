"""The worker processes of a `WorkerVectorEnv`, and the episodes that begin again in a new one."""

from __future__ import annotations

import functools
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError

from rate.envs._elsewhere import Elsewhere
from rate.envs._env_service import EnvService
from rate.envs._guest_pipe import GuestWorker
from rate.envs._shared_buffers import SharedBuffers, unnamed_file
from rate.envs.outcomes import Outcomes
from rate.workers.child import WorkerFailure
from rate.workers.pool import WorkerPool, split_evenly
from rate.workers.worker import Worker, WorkerDied

MakeEnv = Callable[[], gymnasium.Env[Any, Any]] | Elsewhere


class EnvPool:
    """Processes that reset and step rows, each those of one contiguous chunk.

    Requests come from clients (groups of rows). A worker answers them in the order in which they
    were made, so that it goes on with one client's rows while the policy of another one runs.

    Args:
        make_env: See `WorkerVectorEnv`, as are the others.
        num_envs: The number `N` of rows.
        num_workers: The number of processes.
        timeout: Seconds after which a worker that does not answer counts as dead.
        max_restarts: How many workers in all may be replaced.

    Attributes:
        made: What the workers say of their environments: spaces, metadata, render mode.
        outcomes: Of the episodes that have ended.
        restarted: `(N,)` bool, rows whose episode has begun again and whose client was not told.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        num_envs: int,
        num_workers: int | None,
        timeout: float,
        max_restarts: int,
    ) -> None:
        self._pool = WorkerPool(max_restarts)
        self._memory = unnamed_file()
        self._release = weakref.finalize(self, os.close, self._memory)
        self._name, self._num_envs = _name_of(make_env), num_envs
        self._asked: dict[RowWorker, deque[tuple[object, list[int]]]] = {}
        self._shared: SharedBuffers | None = None
        self._seeds = [0] * num_envs
        self.made: dict[str, Any] = {}
        self.outcomes = Outcomes(num_envs)
        self.restarted = np.zeros(num_envs, dtype=bool)
        try:
            for rows in split_evenly(num_envs, num_workers):
                worker = _start(make_env, rows, self._memory, timeout)
                self._pool.add(worker)
                self._asked[worker] = deque()
            for worker in self.workers:
                self._meet(worker)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> list[RowWorker]:
        return list(self._asked)

    @property
    def closed(self) -> bool:
        return self._pool.closed

    def close(self) -> None:
        """End the processes. Nothing happens the second time."""
        self._pool.close()
        self._release()
        self._shared = None

    @property
    def buffers(self) -> SharedBuffers:
        """The memory that is shared with the workers.

        Raises:
            ClosedEnvironmentError: If there is none any more.
        """
        if self._shared is None:
            raise ClosedEnvironmentError(f"{self._name}: the worker processes have been closed")
        return self._shared

    def reset(self, client: object, seeds: dict[int, int]) -> None:
        """Have the rows `{row: seed}` begin their episodes."""
        for row, seed in seeds.items():
            self._seeds[row] = seed
            self.outcomes.forget(row)
        for worker in self.workers:
            if chosen := {row: seed for row, seed in seeds.items() if row in worker.rows}:
                self._ask(worker, client, "reset", list(chosen), chosen)

    def step(self, client: object, rows: list[int]) -> None:
        """Have these rows, none of which has finished, take the actions that are in the buffers."""
        for worker in self.workers:
            if chosen := [row for row in rows if row in worker.rows]:
                self._ask(worker, client, "step", chosen, chosen)

    def _ask(
        self, worker: RowWorker, client: object, method: str, rows: list[int], argument: Any
    ) -> None:
        self._asked[worker].append((client, rows))
        worker.ask(method, argument)

    def collect(self, client: object | None = None) -> None:
        """Wait for all that one client, or any, has asked for; may be called again if interrupted.

        Raises:
            WorkerFailure: If workers died too often. The pool is closed then.
            Exception: What an environment raised. All rows count as finished then.
        """
        errors = []
        for worker, asked in self._asked.items():
            while any(client in (None, who) for who, _ in asked):
                try:
                    self.outcomes.note(worker.answer())
                except WorkerDied as death:
                    self._replace(worker, str(death))
                    continue
                except Exception as error:  # noqa: BLE001 (raised below, with the pipes in order)
                    errors.append(error)
                asked.popleft()
        if errors:
            with suppress(Exception):
                self.collect()
            self.buffers.terminated[:] = self.buffers.truncated[:] = True
            raise errors[0]

    def render(self, row: int) -> Any:
        """What `render()` of a row's environment returns; None if its worker died of that."""
        self.collect()
        (worker,) = (worker for worker in self.workers if row in worker.rows)
        worker.ask("render", row)
        try:
            return worker.answer()
        except WorkerDied:
            return None  # the next step or reset replaces the worker, and says so
        except KeyboardInterrupt:
            worker.kill("its rendering was interrupted")  # or its answer would be taken for another
            raise

    def _meet(self, worker: RowWorker) -> None:
        """Wait for a new worker's environments; one that dies meanwhile is replaced."""
        try:
            self._introduce(worker)
        except WorkerDied as death:
            self._replace(worker, str(death))

    def _introduce(self, worker: RowWorker) -> None:
        """Learn from a new worker what its environments are, and show it the shared memory."""
        made = worker.answer()
        if self._shared is None:
            self._name, self.made = made["name"], made
            both = made["observation_space"], made["action_space"]
            self._shared = SharedBuffers(self._memory, *both, self._num_envs)
            self._shared.terminated[:] = self._shared.truncated[:] = True
        for name in ("observation_space", "action_space"):
            if made[name] != self.made[name]:
                raise WorkerFailure(
                    f"{self._name}: the {name} of row {worker.rows.start} is {made[name]}, but "
                    f"{self.made[name]} before; make_env must make them all alike"
                )
        worker.ask("share", self._num_envs)
        worker.answer()

    def _replace(self, worker: RowWorker, why: str) -> None:
        """Start a dead worker's process afresh and begin the episodes under way in it again.

        Those are what it was asked for, whatever it has made of it, and all that has not finished.
        """
        rows = {row for _, asked in self._asked[worker] for row in asked}
        if self._shared is not None:
            rows |= set(np.flatnonzero(self._shared.under_way).tolist()) & set(worker.rows)
        span = f"rows {worker.rows.start} to {worker.rows.stop - 1}"
        while True:
            try:
                self._pool.restart(worker, f"{self._name}: the worker of {span}", why)
                self._introduce(worker)
                worker.ask("reset", {row: self._seeds[row] for row in sorted(rows)})
                worker.answer()
            except WorkerDied as death:
                why = str(death)
            except BaseException:
                worker.kill("its restart was interrupted")
                if self._pool.closed:
                    self.close()
                raise
            else:
                self._asked[worker].clear()
                self.restarted[list(rows)] = True
                return


class _OwnWorker(Worker):
    """A worker of this Python, which steps consecutive rows."""

    def __init__(self, make_env: Any, rows: range, memory: int, timeout: float) -> None:
        self.rows = rows
        super().__init__(partial(EnvService, make_env, memory), rows, timeout, (memory,))


RowWorker = _OwnWorker | GuestWorker


def _start(make_env: MakeEnv, rows: range, memory: int, timeout: float) -> RowWorker:
    if isinstance(make_env, Elsewhere):
        return GuestWorker(rows, make_env, memory, timeout)
    return _OwnWorker(make_env, rows, memory, timeout)


def _name_of(make_env: Any) -> str:
    """What to call the environments before there is one."""
    if isinstance(make_env, Elsewhere):
        return str(make_env)
    while isinstance(make_env, functools.partial):
        make_env = make_env.func
    return getattr(make_env, "__qualname__", type(make_env).__name__)
