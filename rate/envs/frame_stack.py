"""Observations of several frames, for environments whose single frame hides what moves.

The environment gives single frames and a data set keeps single frames, each of them once. The last
`k` become the channels of one observation: here when acting, in `rate.batch.stack_frames` when
training. Frames before an episode's first are zero in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from rate.errors import ConfigError

Array = npt.NDArray[Any]


def stacked_space(space: gymnasium.Space[Any], count: int) -> gymnasium.Space[Any]:
    """The space of `count` frames of a space: they are channels, wherever its channels stand.

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
    """`(N, k, *frame)`, oldest first, as `(N, *obs)`; a copy."""
    if frames.ndim == 5 and frames.shape[-1] < frames.shape[2]:  # channels last
        return np.concatenate(np.moveaxis(frames, 1, 0), axis=-1)
    if frames.ndim == 4:
        return frames.copy()
    return np.concatenate(np.moveaxis(frames, 1, 0), axis=1)


class FrameStackVector(VectorWrapper[Array, Any, Array, Any, Array]):
    """The last `count` frames of every row of a vector environment without autoreset.

    Args:
        env: Gives single frames.
        count: Frames of an observation.

    Raises:
        ConfigError: If its observations are no images.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], count: int) -> None:
        super().__init__(env)
        frame = env.single_observation_space
        self.single_observation_space = stacked_space(frame, count)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._frames: Array = np.zeros((env.num_envs, count, *(frame.shape or ())), frame.dtype)
        self._finished = np.ones(env.num_envs, dtype=bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Start episodes in all rows, or in those of `options["reset_mask"]`."""
        frames, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        rows = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool)))
        self._begin(rows | self._restarted(info), frames)
        return _as_channels(self._frames), info

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One action in every row. A row that has finished keeps its last observation."""
        frames, rewards, terminated, truncated, info = self.env.step(actions)
        going = ~self._finished
        self._frames[going, :-1] = self._frames[going, 1:]
        self._frames[going, -1] = frames[going]
        self._finished = terminated | truncated
        self._begin(self._restarted(info), frames)
        return _as_channels(self._frames), rewards, terminated, truncated, info

    def _begin(self, rows: Array, frames: Array) -> None:
        """An episode begins in the rows `(N,)` bool: there was nothing before its first frame."""
        self._frames[rows] = 0
        self._frames[rows, -1] = frames[rows]
        self._finished &= ~rows

    def _restarted(self, info: dict[str, Any]) -> Array:
        """`(N,)` bool, rows whose simulator died and which have begun their episode again."""
        return np.asarray(info.get("restarted", np.zeros(self.num_envs, dtype=bool)))
