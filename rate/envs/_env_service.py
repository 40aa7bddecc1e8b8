"""The worker's side of `WorkerVectorEnv`: steps some rows and writes into the shared buffers.

A worker imports this module: keep it free of torch and of whatever is slow to load.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium

from rate.envs._shared_buffers import SharedBuffers
from rate.envs.outcomes import scalars
from rate.envs.row_errors import note_episode
from rate.errors import UserError
from rate.workers.child import Beat, WorkerFailure, last_lines


class EnvService:
    """The environments of one worker. Its public methods are what the parent may ask for.

    Args:
        make_env: Makes an environment.
        memory: Descriptor of the shared memory.
        beat: Gives a sign of life.
    """

    lost = (UserError,)  # of a simulator that gave up

    def __init__(
        self, make_env: Callable[[], gymnasium.Env[Any, Any]], memory: int, beat: Beat
    ) -> None:
        os.set_inheritable(memory, False)
        self._make_env, self._memory, self._beat = make_env, memory, beat
        self._envs: dict[int, gymnasium.Env[Any, Any]] = {}
        self._episodes: dict[int, tuple[int, int]] = {}  # seed and steps so far of each row
        self._shared: SharedBuffers | None = None

    def make(self, rows: range) -> dict[str, Any]:
        """Make an environment for each row; returns what it is."""
        for row in rows:
            try:
                self._envs[row] = self._make_env()
            except UserError:
                raise
            except Exception as error:
                trace = last_lines(traceback.format_exc())
                raise WorkerFailure(f"an environment could not be made:\n{trace}") from error
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
        """Map the buffers of all `num_envs` rows."""
        env = next(iter(self._envs.values()))
        self._shared = SharedBuffers(
            self._memory, env.observation_space, env.action_space, num_envs
        )

    def reset(self, seeds: dict[int, int]) -> dict[int, Any]:
        """Begin episodes of the given `{row: seed}`."""
        shared = self._buffers
        for row, seed in seeds.items():
            self._episodes[row] = seed, 0
            try:
                observation, _ = self._envs[row].reset(seed=seed)
                shared.write(row, observation)
            except Exception as error:
                self._renew(row)
                note_episode(error, seed, 0)
                raise
            shared.rewards[row], shared.terminated[row], shared.truncated[row] = 0, False, False
            self._beat()
        return {}

    def step(self, rows: list[int]) -> dict[int, dict[str, Any]]:
        """Step rows that are not finished; returns `{row: outcomes}` of those that end now."""
        shared = self._buffers
        ended = {}
        for row in rows:
            action = shared.actions[row].copy()  # an environment may keep it
            seed, steps = self._episodes[row]
            try:
                observation, reward, terminated, truncated, info = self._envs[row].step(action)
                shared.write(row, observation)
                shared.rewards[row] = reward
            except Exception as error:
                self._renew(row)
                note_episode(error, seed, steps)
                raise
            self._episodes[row] = seed, steps + 1
            shared.terminated[row], shared.truncated[row] = terminated, truncated
            if terminated or truncated:
                ended[row] = scalars(info)
        return ended

    def _renew(self, row: int) -> None:
        """Make a row's environment anew, for its state may be invalid after an exception."""
        with contextlib.suppress(Exception):
            self._envs[row].close()
        self._envs[row] = self._make_env()

    def render(self, row: int) -> Any:
        """What `render()` of a row's environment returns."""
        return self._envs[row].render()

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs.values():
            with contextlib.suppress(Exception):  # the others are to be closed as well
                env.close()

    @property
    def _buffers(self) -> SharedBuffers:
        if self._shared is None:
            raise RuntimeError("a worker was asked for episodes before it knew where to put them")
        return self._shared
