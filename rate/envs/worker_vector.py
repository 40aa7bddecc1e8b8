"""A vector environment for slow simulators: rows in worker processes, arrays in shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rate.envs._elsewhere import Elsewhere
from rate.envs._env_pool import EnvPool, MakeEnv
from rate.envs._shared_buffers import Observation
from rate.envs.autoreset import WAITING
from rate.workers.child import WorkerFailure

__all__ = ["Elsewhere", "MakeEnv", "RowGroup", "WorkerFailure", "WorkerVectorEnv"]

Array = npt.NDArray[Any]


class RowGroup(VectorEnv[Any, Array, Array]):
    """A vector environment of some rows of a `WorkerVectorEnv`, with the same semantics.

    Args:
        pool: The worker processes.
        rows: The indices of its rows in the pool.
        copy: Return copies of the observations.

    Attributes:
        max_steps: The environments' own time limit in steps, if another Python reports one.
    """

    def __init__(self, pool: EnvPool, rows: range, copy: bool) -> None:
        self._pool, self._rows, self._copy = pool, rows, copy
        self._slice = slice(rows.start, rows.stop, rows.step)
        self._doing = ""
        self.num_envs = len(rows)
        self.render_mode = pool.made["render_mode"]
        self.max_steps: int | None = pool.made.get("max_steps")
        self.metadata = {**pool.made["metadata"], **WAITING}
        self.single_observation_space = pool.made["observation_space"]
        self.single_action_space = pool.made["action_space"]
        self.observation_space = batch_space(self.single_observation_space, len(rows))
        self.action_space = batch_space(self.single_action_space, len(rows))

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start episodes; an integer `seed` gives row `i` the seed `seed + i`, None draws them."""
        self.reset_async(seed=seed, options=options)
        return self.reset_wait()

    def reset_async(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Start a reset; `reset_wait` returns its result.

        Raises:
            ValueError: If `options` has keys other than `reset_mask`, or the mask is not `(N,)`.
        """
        _ = self._pool.buffers
        options = {"reset_mask": np.ones(self.num_envs), **(options or {})}
        mask = np.asarray(options["reset_mask"], dtype=bool)
        if mask.shape != (self.num_envs,) or len(options) > 1:
            raise ValueError(f"reset options {options}: reset_mask ({self.num_envs},), no others")
        seeds = self._row_seeds(seed)
        self._pool.collect(self)  # answers left by an interrupt, such as Ctrl+C in a notebook
        self._pool.reset(self, {self._rows[row]: seeds[row] for row in np.flatnonzero(mask)})
        self._doing = "reset"

    def reset_wait(self) -> tuple[Observation, dict[str, Any]]:
        """Wait for the reset that `reset_async` started. Returns observations and `info`."""
        self._finish("reset")
        return self._observe(), self._info()

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Step every unfinished row with its action of `(N, *action)`."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: npt.ArrayLike) -> None:
        """Start a step without waiting; `step_wait` returns its result.

        Raises:
            ValueError: If the actions do not have the shape and kind of `action_space`, or integer
                actions are out of bounds. No row is stepped then.
        """
        buffers = self._pool.buffers
        self._require_idle()
        checked = buffers.check(actions, self.action_space)
        self._pool.collect(self)
        buffers.actions[self._slice] = checked
        buffers.rewards[self._slice] = 0
        under_way = buffers.under_way
        self._pool.step(self, [row for row in self._rows if under_way[row]])
        self._doing = "step"

    def step_wait(self) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Wait for the step that `step_async` started.

        Returns:
            Observations, rewards `(N,)`, terminated `(N,)`, truncated `(N,)` and `info`.
        """
        self._finish("step")
        buffers, rows = self._pool.buffers, self._slice
        flags = buffers.terminated[rows].copy(), buffers.truncated[rows].copy()
        return self._observe(), buffers.rewards[rows].copy(), *flags, self._info()

    @property
    def closed(self) -> bool:
        """Whether the processes have ended."""
        return self._pool.closed

    @closed.setter
    def closed(self, _: bool) -> None:
        """Ignores what Gymnasium sets; the state of the processes is authoritative."""

    def _finish(self, method: str) -> None:
        """Wait for the requests of `method`_async."""
        _ = self._pool.buffers
        if self._doing != method:
            raise NoAsyncCallError(f"{method}_wait without {method}_async before it", method)
        try:
            self._pool.collect(self)
        except KeyboardInterrupt:
            raise  # the caller may wait again
        except BaseException:
            self._doing = ""
            raise
        self._doing = ""

    def _require_idle(self) -> None:
        if self._doing:
            done = f"call {self._doing}_wait first"
            raise AlreadyPendingCallError(f"a {self._doing} is under way: {done}", self._doing)

    def _info(self) -> dict[str, Any]:
        restarted = self._pool.restarted[self._slice].copy()
        self._pool.restarted[self._slice] = False
        return {**self._pool.outcomes.arrays(self._slice), "restarted": restarted}

    def _observe(self) -> Observation:
        observations = self._pool.buffers.observations
        if isinstance(observations, dict):
            return {key: self._part(array) for key, array in observations.items()}
        return self._part(observations)

    def _part(self, array: Array) -> Array:
        return array[self._slice].copy() if self._copy else array[self._slice]

    def _row_seeds(self, seed: int | Sequence[int] | None) -> list[int]:
        """Returns a seed for each row; None draws them from `np_random`."""
        if seed is None:  # 31 bits: some simulators accept no more
            return [int(value) for value in self.np_random.integers(1 << 31, size=self.num_envs)]
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
            return [int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"got {len(seed)} seeds for {self.num_envs} environments")
        return [int(value) for value in seed]


class WorkerVectorEnv(RowGroup):
    """`N` environments in worker processes, each of which steps a contiguous range of rows.

    As in `TMazeVector` there is no autoreset: a finished row keeps its last observation and flags,
    with zero reward, until `reset`. `options={"reset_mask": (N,) bool}` resets some rows only. Rows
    that have never been reset count as finished.

    `info[key]` `(N,)` holds the scalars of the final `info` of each finished row's episode, NaN or
    False in other rows. The mask `info["_" + key]` `(N,)` is True where the value is known; a key
    without any known value is omitted. The `info` of other steps and of resets is dropped.

    A worker that dies, does not answer in time, or whose simulator raises a `UserError` in `step`
    or `reset`, is replaced. Its unfinished episodes restart with the same seeds, and
    `info["restarted"]` `(N,)` bool is True in their rows. A restarted row has its first
    observation, reward 0 and no flags. Any other exception is raised unchanged; all rows count as
    finished then, until they are reset.

    Args:
        make_env: Makes one environment; all must have the same spaces. Pickled with cloudpickle, so
            that lambdas and functions defined in a notebook are allowed. With an `Elsewhere`,
            another Python makes them, and errors of its simulators are `WorkerFailure`s.
        num_envs: The number `N` of rows.
        num_workers: The number of processes, at most `N`. None is one for each core that this
            process may use, less one for the policy from four cores.
        timeout: Seconds after which a worker that does not answer counts as dead. The limit applies
            to each environment separately when environments are made or reset.
        max_restarts: The number of restarts within an hour, over all workers, that are allowed. One
            that dies three times in a row while it begins ends all.
        copy: Return copies of the observations. Otherwise they are views, which the next `step`
            or `reset` overwrites.

    Raises:
        UserError: If `make_env` raised one; the class is kept.
        WorkerFailure: If `make_env` raised another error, or workers died too often (from
            every method that waits for them); the vector is closed then.
        ValueError: If a space is neither an array nor, for observations, a dictionary of arrays.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        num_envs: int,
        num_workers: int | None = None,
        timeout: float = 120.0,
        max_restarts: int = 60,
        copy: bool = True,
    ) -> None:
        pool = EnvPool(make_env, num_envs, num_workers, timeout, max_restarts)
        super().__init__(pool, range(num_envs), copy)

    @property
    def num_workers(self) -> int:
        """The number of worker processes."""
        return len(self._pool.workers)

    def groups(self, count: int) -> list[RowGroup]:
        """Returns the rows as up to `count` groups that step independently of each other.

        Every worker has rows in each group, so that all workers are busy while one group steps;
        `count` is reduced to the least number of rows of a worker. The groups close with this
        vector, which must not be reset or stepped while they are in use.
        """
        count = min(count, *(len(worker.rows) for worker in self._pool.workers))
        rows = [range(self.num_envs)[first::count] for first in range(count)]
        return [_Group(self, self._pool, part, self._copy) for part in rows]

    def render_row(self, row: int) -> Array | None:
        """Returns the image of `render()` of a row's environment; None if the worker died."""
        _ = self._pool.buffers
        self._require_idle()
        image: Array | None = self._pool.render(row)
        return image

    def close_extras(self, **_: Any) -> None:
        self._pool.close()


class _Group(RowGroup):
    """A `RowGroup` that keeps a reference to its vector, so that the vector is not collected."""

    def __init__(self, vector: WorkerVectorEnv, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._vector = vector
