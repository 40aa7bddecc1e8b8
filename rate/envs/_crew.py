"""The worker processes of a `WorkerVector`: what they were asked, and who follows a dead one."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector.utils import CloudpickleWrapper

from rate.advice import command
from rate.envs._guest_pipe import Elsewhere, GuestWorker
from rate.envs._shared_rows import SharedRows, unnamed_file
from rate.envs._worker_handle import Outcomes, Worker, WorkerDied, chunks, close_workers
from rate.envs._worker_process import EnvironmentFailure

MakeEnv = Callable[[], gymnasium.Env[Any, Any]] | Elsewhere
_LOG = logging.getLogger(__name__)


class Crew:
    """Processes that reset and step rows, each those of one contiguous chunk.

    Requests come from askers (groups of rows). A worker answers them in the order in which they
    were made, so that it goes on with one asker's rows while another one thinks.

    Args:
        make_env: See `WorkerVector`, as are the others.
        num_envs: The number `N` of rows.
        num_workers: The number of processes.
        timeout: Seconds after which a worker that does not answer counts as dead.
        max_restarts: How many workers in all may be replaced.

    Attributes:
        made: What the workers say of their environments: spaces, metadata, render mode.
        outcomes: Of the episodes that have ended.
        restarted: `(N,)` bool, rows whose episode has begun again and whose asker was not told.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        num_envs: int,
        num_workers: int | None,
        timeout: float,
        max_restarts: int,
    ) -> None:
        self.workers: list[Worker] = []
        self._memory = unnamed_file()
        # Runs at the interpreter's exit as well, and whatever happens from here on.
        self._finalizer = weakref.finalize(self, _release, self.workers, self._memory)
        self._name, self._num_envs = _name_of(make_env), num_envs
        self._max_restarts, self._restarts = max_restarts, 0
        self._asked: dict[Worker, deque[tuple[object, list[int]]]] = {}
        self._shared: SharedRows | None = None
        self._seeds = [0] * num_envs
        self.made: dict[str, Any] = {}
        self.outcomes = Outcomes(num_envs)
        self.restarted = np.zeros(num_envs, dtype=bool)
        start = _starting(make_env)
        try:
            for rows in chunks(num_envs, num_workers):
                self.workers.append(start(rows, self._memory, timeout))
                self._asked[self.workers[-1]] = deque()
            for worker in self.workers:
                self._meet(worker)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        """End the processes. Nothing happens the second time."""
        self._finalizer()
        self._shared = None

    @property
    def board(self) -> SharedRows:
        """The memory that is shared with the workers.

        Raises:
            ClosedEnvironmentError: If there is none any more.
        """
        if self._shared is None:
            raise ClosedEnvironmentError(f"{self._name}: the worker processes have been closed")
        return self._shared

    def reset(self, asker: object, seeds: dict[int, int]) -> None:
        """Have the rows `{row: seed}` begin their episodes."""
        for row, seed in seeds.items():
            self._seeds[row] = seed
            self.outcomes.forget(row)
        for worker in self.workers:
            if chosen := {row: seed for row, seed in seeds.items() if row in worker.rows}:
                self._ask(worker, asker, "reset", list(chosen), chosen)

    def step(self, asker: object, rows: list[int]) -> None:
        """Have these rows, none of which has finished, take the actions that are on the board."""
        for worker in self.workers:
            if chosen := [row for row in rows if row in worker.rows]:
                self._ask(worker, asker, "step", chosen, chosen)

    def _ask(
        self, worker: Worker, asker: object, method: str, rows: list[int], argument: Any
    ) -> None:
        self._asked[worker].append((asker, rows))
        worker.ask(method, argument)

    def collect(self, asker: object | None = None) -> None:
        """Wait for all that was asked by one, or by anybody; may be called again if interrupted.

        Raises:
            EnvironmentFailure: If workers died too often. The crew is closed then.
            Exception: What an environment raised. All rows count as finished then.
        """
        errors = []
        for worker, asked in self._asked.items():
            while any(asker in (None, who) for who, _ in asked):
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
            self.board.terminated[:] = self.board.truncated[:] = True
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

    def _meet(self, worker: Worker) -> None:
        """Wait for a new worker's environments; one that dies meanwhile is replaced."""
        try:
            self._introduce(worker)
        except WorkerDied as death:
            self._replace(worker, str(death))

    def _introduce(self, worker: Worker) -> None:
        """Learn from a new worker what its environments are, and show it the shared memory."""
        made = worker.answer()
        if self._shared is None:
            self._name, self.made = made["name"], made
            both = made["observation_space"], made["action_space"]
            self._shared = SharedRows(self._memory, *both, self._num_envs)
            self._shared.terminated[:] = self._shared.truncated[:] = True
        for name in ("observation_space", "action_space"):
            if made[name] != self.made[name]:
                raise EnvironmentFailure(
                    f"{self._name}: the {name} of row {worker.rows.start} is {made[name]}, but "
                    f"{self.made[name]} before; make_env must make them all alike"
                )
        worker.ask("share", self._num_envs)
        worker.answer()

    def _replace(self, worker: Worker, why: str) -> None:
        """Start a dead worker's process afresh and begin the episodes under way in it again.

        Those are what it was asked for, whatever it has made of it, and all that has not finished.
        """
        rows = {row for _, asked in self._asked[worker] for row in asked}
        if self._shared is not None:
            rows |= set(np.flatnonzero(self._shared.under_way).tolist()) & set(worker.rows)
        while True:
            span = f"rows {worker.rows.start} to {worker.rows.stop - 1}"
            self._restarts += 1
            if self._restarts > self._max_restarts:
                self.close()
                raise EnvironmentFailure(
                    f"{self._name}: the worker process of {span} failed: {why}. Workers have been "
                    f"restarted {self._max_restarts} times already. To see whether the simulator "
                    f"runs on this computer: {command('doctor')}"
                )
            _LOG.warning("%s: restarting the worker process of %s: %s", self._name, span, why)
            try:
                worker.start()
                self._introduce(worker)
                worker.ask("reset", {row: self._seeds[row] for row in sorted(rows)})
                worker.answer()
            except WorkerDied as death:
                why = str(death)
            except BaseException:
                worker.kill("its restart was interrupted")
                raise
            else:
                self._asked[worker].clear()
                self.restarted[list(rows)] = True
                return


def _starting(make_env: MakeEnv) -> Callable[[range, int, float], Worker]:
    """What starts a worker for some rows, from the shared memory's descriptor and a time-out."""
    if isinstance(make_env, Elsewhere):
        return lambda rows, *how: GuestWorker(rows, make_env, *how)
    pickled = pickle.dumps(CloudpickleWrapper(make_env))
    return lambda rows, *how: Worker(rows, pickled, *how)


def _release(workers: list[Worker], memory: int) -> None:
    close_workers(workers)
    os.close(memory)


def _name_of(make_env: Any) -> str:
    """What to call the environments before there is one."""
    if isinstance(make_env, Elsewhere):
        return str(make_env)
    while isinstance(make_env, functools.partial):
        make_env = make_env.func
    return getattr(make_env, "__qualname__", type(make_env).__name__)
