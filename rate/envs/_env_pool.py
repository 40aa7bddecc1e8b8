"""The worker processes of a `WorkerVectorEnv`; episodes of dead workers restart in new ones."""

from __future__ import annotations

import functools
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
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

_STARTS = 3  # of a worker that dies before it has begun its episodes
MakeEnv = Callable[[], gymnasium.Env[Any, Any]] | Elsewhere


class EnvPool:
    """Worker processes that reset and step rows; each has a contiguous range of rows.

    Requests come from clients (groups of rows). A worker answers requests in order, so that it can
    step one client's rows while the policy computes the actions of another client.

    Args:
        make_env: See `WorkerVectorEnv`.
        num_envs: The number `N` of rows.
        num_workers: The number of processes; see `WorkerVectorEnv`.
        timeout: Seconds after which a worker that does not answer counts as dead.
        max_restarts: The number of restarts within an hour, over all workers, that are allowed.

    Attributes:
        made: The description of the environments: name, spaces, metadata, render mode.
        outcomes: The final `info` of the episodes that have ended.
        restarted: `(N,)` bool, rows whose episode has restarted and whose client has not read that.
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
        self._pending: dict[RowWorker, deque[tuple[object, list[int]]]] = {}
        self._shared: SharedBuffers | None = None
        self._seeds = [0] * num_envs
        self.made: dict[str, Any] = {}
        self.outcomes = Outcomes(num_envs)
        self.restarted = np.zeros(num_envs, dtype=bool)
        try:
            for rows in split_evenly(num_envs, num_workers):
                worker = _start(make_env, rows, self._memory, timeout)
                self._pool.add(worker)
                self._pending[worker] = deque()
            for worker in self.workers:
                self._wait_until_ready(worker)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> list[RowWorker]:
        return list(self._pending)

    @property
    def closed(self) -> bool:
        return self._pool.closed

    def close(self) -> None:
        """End the processes. A second call has no effect."""
        self._pool.close()
        self._release()
        self._shared = None

    @property
    def buffers(self) -> SharedBuffers:
        """The memory that is shared with the workers.

        Raises:
            ClosedEnvironmentError: If the pool is closed.
        """
        if self._shared is None:
            raise ClosedEnvironmentError(f"{self._name}: the worker processes have been closed")
        return self._shared

    def reset(self, client: object, seeds: dict[int, int]) -> None:
        """Request a reset of the rows `{row: seed}`; `collect` waits for it."""
        for row, seed in seeds.items():
            self._seeds[row] = seed
            self.outcomes.forget(row)
        for worker in self.workers:
            if chosen := {row: seed for row, seed in seeds.items() if row in worker.rows}:
                self._ask(worker, client, "reset", list(chosen), chosen)

    def step(self, client: object, rows: list[int]) -> None:
        """Request a step of unfinished rows with the actions in the buffers; `collect` waits."""
        for worker in self.workers:
            if chosen := [row for row in rows if row in worker.rows]:
                self._ask(worker, client, "step", chosen, chosen)

    def _ask(
        self, worker: RowWorker, client: object, method: str, rows: list[int], argument: Any
    ) -> None:
        self._pending[worker].append((client, rows))
        worker.ask(method, argument)

    def collect(self, client: object | None = None) -> None:
        """Wait for all requests of one client, or of all (None); repeatable after an interrupt.

        Raises:
            WorkerFailure: If workers died too often. The pool is closed then.
            Exception: If an environment raised one. All rows count as finished then.
        """
        errors = []
        for worker, pending in self._pending.items():
            while any(client in (None, requester) for requester, _ in pending):
                try:
                    self.outcomes.note(worker.answer())
                except WorkerDied as death:
                    self._replace(worker, str(death))
                    continue
                except Exception as error:  # noqa: BLE001 (raised below, after all answers are read)
                    errors.append(error)
                pending.popleft()
        if errors:
            with suppress(Exception):
                self.collect()
            self.buffers.terminated[:] = self.buffers.truncated[:] = True
            raise errors[0]

    def render(self, row: int) -> Any:
        """Returns the image of `render()` of a row's environment; None if the worker died."""
        self.collect()
        (worker,) = (worker for worker in self.workers if row in worker.rows)
        worker.ask("render", row)
        try:
            return worker.answer()
        except WorkerDied:
            return None  # the next step or reset replaces the worker, with a warning
        except KeyboardInterrupt:
            worker.kill("its rendering was interrupted")  # a late answer would be misread
            raise

    def _wait_until_ready(self, worker: RowWorker) -> None:
        """Wait until a new worker has made its environments; replace it if it dies meanwhile."""
        try:
            self._set_up(worker)
        except WorkerDied as death:
            self._replace(worker, str(death))

    def _set_up(self, worker: RowWorker) -> None:
        """Read the description of a new worker's environments, and have it map the shared memory.

        Raises:
            WorkerFailure: If its spaces differ from those of the other workers.
        """
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
        """Start a new process for a dead worker and restart its current episodes.

        These are the episodes of all rows in unanswered requests, and of all unfinished rows.
        """
        rows = {row for _, pending in self._pending[worker] for row in pending}
        if self._shared is not None:
            rows |= set(np.flatnonzero(self._shared.under_way).tolist()) & set(worker.rows)
        span = f"rows {worker.rows.start} to {worker.rows.stop - 1}"
        for attempt in count():
            try:
                if attempt == _STARTS:
                    raise self._pool.failure(self._name, why, f"{_STARTS} times in a row")
                self._pool.restart(worker, f"{self._name}: the worker of {span}", why)
                self._set_up(worker)
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
                self._pending[worker].clear()
                self.restarted[list(rows)] = True
                return


class _OwnWorker(Worker):
    """A worker under the same Python, which steps consecutive rows."""

    def __init__(self, make_env: Any, rows: range, memory: int, timeout: float) -> None:
        self.rows = rows
        super().__init__(partial(EnvService, make_env, memory), rows, timeout, (memory,))


RowWorker = _OwnWorker | GuestWorker


def _start(make_env: MakeEnv, rows: range, memory: int, timeout: float) -> RowWorker:
    if isinstance(make_env, Elsewhere):
        return GuestWorker(rows, make_env, memory, timeout)
    return _OwnWorker(make_env, rows, memory, timeout)


def _name_of(make_env: Any) -> str:
    """Returns a name for the environments, for messages before one has been made."""
    if isinstance(make_env, Elsewhere):
        return str(make_env)
    while isinstance(make_env, functools.partial):
        make_env = make_env.func
    return getattr(make_env, "__qualname__", type(make_env).__name__)
