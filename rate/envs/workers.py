"""A vector environment for slow simulators: rows in worker processes, frames in shared memory."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space

from rate.envs._shared_rows import Observation, SharedRows, unnamed_file
from rate.envs._worker_handle import Outcomes, Worker, WorkerDied, chunks, close_workers
from rate.envs._worker_process import EnvironmentFailure

__all__ = ["EnvironmentFailure", "WorkerVector"]

_LOG = logging.getLogger(__name__)


class WorkerVector(VectorEnv[Any, npt.NDArray[Any], npt.NDArray[Any]]):
    """`N` environments in worker processes, each of which steps a contiguous chunk of the rows.

    As in `TMazeVector` there is no autoreset: a finished row keeps its last observation and flags,
    with zero reward, until `reset`; `options={"reset_mask": (N,) bool}` resets some rows only. Rows
    that have never been reset count as finished.

    `info[key]` `(N,)` holds the scalars of the `info` that ended each finished row's episode, NaN
    or False elsewhere; the mask `info["_" + key]` tells where it is known, and a key that no row
    knows is left out. The `info` of other steps and of resets is dropped.

    A worker that dies, does not answer in time, or whose simulator raises a `UserError` in `step`
    or `reset`, is replaced, and the episodes under way in it begin again with their seeds:
    `info["restarted"]` `(N,)` bool tells in which rows. Such a row has the first observation,
    reward 0 and no flags. Any other exception is raised here as it is; then all rows count as
    finished until they are reset.

    Args:
        make_env: Makes one environment; all are alike. Pickled by value where need be, so that a
            lambda or a function of a notebook will do.
        num_envs: The number `N` of rows.
        num_workers: The number of processes, at most `N`; all of this process's cores if None.
        timeout: Seconds after which a worker that does not answer counts as dead. Making or
            resetting environments may take that long for each of them.
        max_restarts: How many workers in all may be replaced.
        copy: Return copies of the observations. Otherwise they are views, which the next `step`
            or `reset` overwrites.

    Raises:
        UserError: What `make_env` raised, as the same class.
        EnvironmentFailure: If `make_env` raised anything else, or workers died too often (from
            every method that waits for them); the vector is closed then.
        ValueError: If a space is neither an array nor, for observations, a dictionary of arrays.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env[Any, Any]],
        num_envs: int,
        num_workers: int | None = None,
        timeout: float = 120.0,
        max_restarts: int = 3,
        copy: bool = True,
    ) -> None:
        self._workers: list[Worker] = []
        self._memory = unnamed_file()
        # Runs at the interpreter's exit as well, and whatever happens from here on.
        self._finalizer = weakref.finalize(self, _release, self._workers, self._memory)
        self.num_envs = num_envs
        self._name = _name_of(make_env)
        self._max_restarts, self._restarts, self._copy = max_restarts, 0, copy
        self._pending: dict[Worker, list[int]] = {}  # rows to begin again if the worker dies
        self._stepping = False
        self._shared: SharedRows | None = None
        self._seeds = [0] * num_envs
        self._restarted = np.zeros(num_envs, dtype=bool)
        self._outcomes = Outcomes(num_envs)
        pickled = pickle.dumps(CloudpickleWrapper(make_env))
        try:
            for rows in chunks(num_envs, num_workers):
                self._workers.append(Worker(rows, pickled, self._memory, timeout))
            for worker in self._workers:
                self._meet(worker)
        except BaseException:
            self.close()
            raise

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start episodes; an integer `seed` gives row `i` the seed `seed + i`, None draws them."""
        shared = self._board
        self._collect()  # what nobody has waited for, say after Ctrl+C in a notebook
        self._stepping = False
        options = {"reset_mask": np.ones(self.num_envs), **(options or {})}
        mask = np.asarray(options["reset_mask"], dtype=bool)
        if mask.shape != (self.num_envs,) or len(options) > 1:
            raise ValueError(f"reset options {options}: reset_mask ({self.num_envs},), no others")
        seeds = self._row_seeds(seed)
        for row in np.flatnonzero(mask):
            self._seeds[row] = seeds[row]
            self._outcomes.forget(int(row))
        under_way = mask | ~(shared.terminated | shared.truncated)
        for worker in self._workers:
            if rows := {row: seeds[row] for row in worker.rows if mask[row]}:
                self._pending[worker] = [row for row in worker.rows if under_way[row]]
                worker.ask("reset", rows)
        self._collect()
        return self._observe(), self._info()

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """One action `(N, *action)` in every row that is not finished."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: npt.ArrayLike) -> None:
        """Begin a step; `step_wait` returns what it brings. Other work may be done meanwhile.

        Raises:
            ValueError: If the actions have another shape or kind than `action_space`, or one of
                them is outside of a space of integers. No row has been stepped then.
        """
        shared = self._board
        self._require_no_step()
        checked = shared.check(actions, self.action_space)
        self._collect()
        shared.actions[...] = checked
        shared.rewards[:] = 0
        under_way = ~(shared.terminated | shared.truncated)
        self._stepping = True
        for worker in self._workers:
            if rows := [row for row in worker.rows if under_way[row]]:
                self._pending[worker] = rows
                worker.ask("step")

    def step_wait(
        self,
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """Wait for the step that `step_async` began."""
        shared = self._board
        if not self._stepping:
            raise NoAsyncCallError("step_wait without step_async before it", "step")
        self._collect()
        self._stepping = False
        flags = shared.terminated.copy(), shared.truncated.copy()
        return self._observe(), shared.rewards.copy(), *flags, self._info()

    def render_row(self, row: int) -> npt.NDArray[Any] | None:
        """What `render()` of a row's environment returns; None if its worker died of that."""
        _ = self._board
        self._require_no_step()
        self._collect()
        (worker,) = (worker for worker in self._workers if row in worker.rows)
        worker.ask("render", row)
        try:
            image: npt.NDArray[Any] | None = worker.answer()
        except WorkerDied:
            return None  # the next step or reset replaces the worker, and says so
        except KeyboardInterrupt:
            worker.kill("its rendering was interrupted")  # or its answer would be taken for another
            raise
        return image

    def close_extras(self, **_: Any) -> None:
        self._finalizer()
        self._shared = None

    @property
    def _board(self) -> SharedRows:
        if self.closed or self._shared is None:
            raise ClosedEnvironmentError(f"{self._name}: the worker processes have been closed")
        return self._shared

    def _require_no_step(self) -> None:
        if self._stepping:
            raise AlreadyPendingCallError("a step is under way: call step_wait first", "step")

    def _meet(self, worker: Worker) -> None:
        """Wait for a new worker's environments; one that dies meanwhile is replaced."""
        try:
            self._introduce(worker)
        except WorkerDied as death:
            self._replace(worker, [], str(death))

    def _introduce(self, worker: Worker) -> None:
        """Learn from a new worker what its environments are, and show it the shared memory."""
        made = worker.answer()
        if self._shared is None:
            self._name = made["name"]
            self.render_mode = made["render_mode"]
            self.metadata = {**made["metadata"], "autoreset_mode": AutoresetMode.DISABLED}
            self.single_observation_space = made["observation_space"]
            self.single_action_space = made["action_space"]
            both = self.single_observation_space, self.single_action_space
            self._shared = SharedRows(self._memory, *both, self.num_envs)
            self._shared.terminated[:] = self._shared.truncated[:] = True
            self.observation_space, self.action_space = (
                batch_space(space, self.num_envs) for space in both
            )
        for name in ("observation_space", "action_space"):
            if made[name] != getattr(self, f"single_{name}"):
                raise EnvironmentFailure(
                    f"{self._name}: the {name} of row {worker.rows.start} is {made[name]}, but "
                    f"{getattr(self, f'single_{name}')} before; make_env must make them all alike"
                )
        worker.ask("share", self.num_envs)
        worker.answer()

    def _collect(self) -> None:
        """Wait for all that is pending. If that is interrupted it may be called once more."""
        errors = []
        while self._pending:
            worker, rows = next(iter(self._pending.items()))
            try:
                self._outcomes.note(worker.answer())
            except WorkerDied as death:
                self._replace(worker, rows, str(death))
            except Exception as error:  # noqa: BLE001 (raised below, once the pipes are in order)
                errors.append(error)
            del self._pending[worker]
        if errors:
            self._stepping = False
            self._board.terminated[:] = self._board.truncated[:] = True
            raise errors[0]

    def _replace(self, worker: Worker, rows: list[int], why: str) -> None:
        """Start a dead worker's process afresh and begin the episodes of `rows` again."""
        while True:
            span = f"rows {worker.rows.start} to {worker.rows.stop - 1}"
            self._restarts += 1
            if self._restarts > self._max_restarts:
                self.close()
                raise EnvironmentFailure(
                    f"{self._name}: the worker process of {span} failed: {why}. Workers have been "
                    f"restarted {self._max_restarts} times already. To see whether the simulator "
                    "runs on this computer: python scripts/doctor.py"
                )
            _LOG.warning("%s: restarting the worker process of %s: %s", self._name, span, why)
            try:
                worker.start()
                self._introduce(worker)
                worker.ask("reset", {row: self._seeds[row] for row in rows})
                worker.answer()
            except WorkerDied as death:
                why = str(death)
            except BaseException:
                worker.kill("its restart was interrupted")
                raise
            else:
                self._restarted[rows] = True
                return

    def _info(self) -> dict[str, Any]:
        info = {**self._outcomes.arrays(), "restarted": self._restarted}
        self._restarted = np.zeros(self.num_envs, dtype=bool)
        return info

    def _observe(self) -> Observation:
        observations = self._board.observations
        if not self._copy:
            return observations
        if isinstance(observations, dict):
            return {key: array.copy() for key, array in observations.items()}
        return observations.copy()

    def _row_seeds(self, seed: int | Sequence[int] | None) -> list[int]:
        """The seeds of the rows; without one they come from the generator of the last one."""
        if seed is None:  # of 31 bits: some simulators take no more
            return [int(value) for value in self.np_random.integers(1 << 31, size=self.num_envs)]
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
            return [int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"got {len(seed)} seeds for {self.num_envs} environments")
        return [int(value) for value in seed]


def _release(workers: list[Worker], memory: int) -> None:
    close_workers(workers)
    os.close(memory)


def _name_of(make_env: Callable[..., Any]) -> str:
    """What to call the environments before there is one."""
    while isinstance(make_env, functools.partial):
        make_env = make_env.func
    return getattr(make_env, "__qualname__", type(make_env).__name__)
