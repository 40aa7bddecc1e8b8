"""A vector environment for fast simulators: rows stepped sequentially in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array

from rate.envs._shared_buffers import store
from rate.envs.autoreset import WAITING
from rate.envs.outcomes import Outcomes, scalars
from rate.envs.row_errors import note_episode
from rate.envs.row_seeds import row_seeds

Array = npt.NDArray[Any]
Observation = Array | dict[str, Array]


class SerialVectorEnv(VectorEnv[Any, Array, Array]):
    """`N` environments in this process; for simulators of more than 1000 steps per second.

    As in `TMazeVector` there is no autoreset: a finished row keeps its last observation and flags,
    with zero reward, until `reset`. `options={"reset_mask": (N,) bool}` resets some rows only. Rows
    that have never been reset count as finished. As in `WorkerVectorEnv`, `info[key]` `(N,)` holds
    the scalars of the final `info` of each finished row's episode, and the mask `info["_" + key]`
    `(N,)` is True where the value is known.

    Args:
        make_env: Makes one environment; all must have the same spaces.
        num_envs: The number `N` of rows.

    Raises:
        ValueError: If `num_envs` is less than 1.
    """

    def __init__(self, make_env: Callable[[], gymnasium.Env[Any, Any]], num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; at least one environment is needed")
        self.num_envs = num_envs
        self._make_env = make_env
        self._envs = [make_env() for _ in range(num_envs)]
        env = self._envs[0]
        self.metadata = {**env.metadata, **WAITING}
        self.render_mode = env.render_mode
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._observations: Observation = create_empty_array(env.observation_space, num_envs)  # type: ignore[assignment]
        self._terminated, self._truncated = (np.ones(num_envs, dtype=bool) for _ in range(2))
        self._outcomes = Outcomes(num_envs)
        self._seeds, self._steps = [0] * num_envs, [0] * num_envs  # of the current episodes

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start episodes; an integer `seed` gives row `i` the seed `seed + i`, None draws them."""
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), dtype=bool)
        if mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {mask.shape}; expected ({self.num_envs},)")
        seeds = row_seeds(self, seed)
        for row in np.flatnonzero(mask).tolist():
            self._seeds[row], self._steps[row] = int(seeds[row]), 0
            try:
                observation, _ = self._envs[row].reset(seed=self._seeds[row])
                self._write(row, observation)
            except Exception as error:
                self._renew(row, error)
                raise
            self._outcomes.forget(row)
        self._terminated[mask] = self._truncated[mask] = False
        return self._observe(), self._outcomes.arrays()

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Step every unfinished row with its action of `(N, *action)`.

        Returns:
            Observations, rewards `(N,)`, terminated `(N,)`, truncated `(N,)` and `info`.

        Raises:
            ValueError: If the actions do not have the shape of `action_space`, or integer actions
                are out of bounds. No row is stepped then.
        """
        actions = self._checked(np.asarray(actions))
        rewards = np.zeros(self.num_envs)
        for row in np.flatnonzero(~(self._terminated | self._truncated)).tolist():
            action = actions[row].copy()  # an environment may keep it
            try:
                observation, rewards[row], terminated, truncated, info = self._envs[row].step(
                    action
                )
                self._write(row, observation)
            except Exception as error:
                self._renew(row, error)
                raise
            self._steps[row] += 1
            self._terminated[row], self._truncated[row] = terminated, truncated
            if terminated or truncated:
                self._outcomes.note({row: scalars(info)})
        flags = self._terminated.copy(), self._truncated.copy()
        return self._observe(), rewards, *flags, self._outcomes.arrays()

    def render_row(self, row: int) -> Array | None:
        """Returns the image of `render()` of a row's environment."""
        image: Array | None = self._envs[row].render()  # type: ignore[assignment]
        return image

    def close_extras(self, **_: Any) -> None:
        for env in self._envs:
            env.close()

    def _checked(self, actions: Array) -> Array:
        space = self.action_space
        fits = actions.shape == space.shape
        if fits and np.issubdtype(space.dtype, np.integer):
            whole = np.issubdtype(actions.dtype, np.integer)
            fits = whole and space.contains(actions.astype(space.dtype))
        if not fits:
            text = np.array2string(actions, threshold=20)
            raise ValueError(f"actions are {actions.dtype} {actions.shape} {text}, not of {space}")
        return actions

    def _renew(self, row: int, error: Exception) -> None:
        """Make a row's environment anew after an error, to which its episode is noted."""
        note_episode(error, self._seeds[row], self._steps[row])
        with suppress(Exception):
            self._envs[row].close()
        self._envs[row] = self._make_env()

    def _write(self, row: int, observation: Any) -> None:
        if not isinstance(self._observations, dict):
            store(self._observations, row, observation)
            return
        for key, array in self._observations.items():
            store(array, row, observation[key])

    def _observe(self) -> Observation:
        if isinstance(self._observations, dict):
            return {key: array.copy() for key, array in self._observations.items()}
        return self._observations.copy()
