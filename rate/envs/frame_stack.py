"""Frame stacking: the last `k` frames are the channels of one observation.

Environments give single frames, and a data set stores each frame once. `FrameStackVector` stacks
them in rollouts, `rate.batch.stack_frames` in training. Frames before an episode's first are zero
in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rate.envs.autoreset import Wrapper, without_autoreset
from rate.errors import ConfigError

Array = npt.NDArray[Any]


def stacked_space(space: gymnasium.Space[Any], count: int) -> gymnasium.Space[Any]:
    """Returns the space of `count` stacked frames; channels stay first or last as in `space`.

    Raises:
        ConfigError: If the space is not one of images.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3):
        raise ConfigError(
            f"data.frame_stack={count} is for images alone, and these observations are {space}; "
            "set it to 1."
        )
    low, high = (
        _as_channels(np.stack([bound] * count)[None])[0] for bound in (space.low, space.high)
    )
    return spaces.Box(low, high, dtype=space.dtype.type)


def _as_channels(frames: Array) -> Array:
    """Returns frames `(N, k, *frame)`, oldest first, as observations `(N, *obs)`; a copy."""
    if frames.ndim == 5 and frames.shape[-1] < frames.shape[2]:  # channels last
        return np.concatenate(np.moveaxis(frames, 1, 0), axis=-1)
    if frames.ndim == 4:
        return frames.copy()
    return np.concatenate(np.moveaxis(frames, 1, 0), axis=1)


class FrameStackVector(Wrapper):
    """A vector environment whose observations are the last `count` frames of each row.

    There is no autoreset: finished rows keep their last observation until `reset`.

    Args:
        env: A vector environment of single frames.
        count: The number of frames of an observation.

    Raises:
        ConfigError: If its observations are not images.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], count: int) -> None:
        super().__init__(without_autoreset(env))
        frame = env.single_observation_space
        self.single_observation_space = stacked_space(frame, count)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._frames: Array = np.zeros((env.num_envs, count, *(frame.shape or ())), frame.dtype)
        self._finished = np.ones(env.num_envs, dtype=bool)
        self._begun = self._finished  # by the last reset

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Starts episodes in all rows, or in those of `options["reset_mask"]`, `(N,)` bool."""
        self._begun = self._rows_of(options)
        return self._begin_with(*self.env.reset(seed=seed, options=options))  # type: ignore[arg-type]

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Takes one action in each row; finished rows keep their last observation."""
        return self._add(*self.env.step(actions))

    def groups(self, count: int) -> list[Any]:
        """The rows in up to `count` groups, if the environment has them; see `WorkerVectorEnv`."""
        groups = getattr(self.env, "groups", None)
        if groups is None:
            return [self]
        return [_FrameStackRows(group, self._frames.shape[1]) for group in groups(count)]

    def _rows_of(self, options: dict[str, Any] | None) -> Array:
        return np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool)))

    def _begin_with(self, frames: Array, info: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
        self._begin(self._begun | self._restarted(info), frames)
        return _as_channels(self._frames), info

    def _add(
        self, frames: Array, rewards: Array, terminated: Array, truncated: Array, info: Any
    ) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Appends the frames of a step. Returns the step with stacked observations."""
        going = ~self._finished
        self._frames[going, :-1] = self._frames[going, 1:]
        self._frames[going, -1] = frames[going]
        self._finished = terminated | truncated
        self._begin(self._restarted(info), frames)
        return _as_channels(self._frames), rewards, terminated, truncated, info

    def _begin(self, rows: Array, frames: Array) -> None:
        """Starts episodes in `rows`, `(N,)` bool: frames before the first are zero."""
        self._frames[rows] = 0
        self._frames[rows, -1] = frames[rows]
        self._finished &= ~rows

    def _restarted(self, info: dict[str, Any]) -> Array:
        """Returns the rows `(N,)` bool that a replaced worker process has reset."""
        return np.asarray(info.get("restarted", np.zeros(self.num_envs, dtype=bool)))


class _FrameStackRows(FrameStackVector):
    """Frame stacking of a group of rows, which are stepped asynchronously."""

    def reset_async(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        self._begun = self._rows_of(options)
        self.env.reset_async(seed=seed, options=options)  # type: ignore[attr-defined]

    def reset_wait(self) -> tuple[Array, dict[str, Any]]:
        return self._begin_with(*self.env.reset_wait())  # type: ignore[attr-defined]

    def step_async(self, actions: Any) -> None:
        self.env.step_async(actions)  # type: ignore[attr-defined]

    def step_wait(self) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        return self._add(*self.env.step_wait())  # type: ignore[attr-defined]
