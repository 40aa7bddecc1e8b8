"""The buffers that `WorkerVectorEnv` and its worker processes share."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from rate.errors import ConfigError

_ALIGNMENT = 64
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)

Observation = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]


class SharedBuffers:
    """The arrays that parent and workers share, in one file without a name.

    Such a file is gone with the last process that has it open, however that process ends, and
    unlike /dev/shm it is not short of room in a container.

    Args:
        file: Descriptor of the file. It is enlarged to the size that is needed.
        observation_space: Space of one observation: arrays, or a dictionary of arrays.
        action_space: Space of one action: an array.
        num_envs: The number `N` of rows.

    Attributes:
        observations: `(N, *shape)`, or a dictionary of such arrays.
        actions: `(N, *shape)`.
        rewards: `(N,)` float64.
        terminated: `(N,)` bool.
        truncated: `(N,)` bool.

    Raises:
        ValueError: If a space is of another kind.
    """

    def __init__(
        self,
        file: int,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        num_envs: int,
    ) -> None:
        keyed = isinstance(observation_space, spaces.Dict)
        parts = {"": observation_space}
        if isinstance(observation_space, spaces.Dict):
            parts = dict(observation_space.spaces)
        for space in (*parts.values(), action_space):
            if not isinstance(space, _ARRAYS):
                raise ValueError(
                    f"workers share arrays (Box, Discrete, MultiDiscrete) and observations that "
                    f"are dictionaries of them; this environment has {space}"
                )
        flags = [((num_envs,), np.dtype(kind)) for kind in (np.float64, np.bool_, np.bool_)]
        batches = [batch_space(space, num_envs) for space in (*parts.values(), action_space)]
        fields = [(batch.shape, batch.dtype) for batch in batches] + flags
        *observations, self.actions, self.rewards, self.terminated, self.truncated = _map_arrays(
            file, fields
        )
        named = dict(zip(parts, observations, strict=True))
        self.observations: Observation = named if keyed else named[""]

    @property
    def under_way(self) -> npt.NDArray[np.bool_]:
        """`(N,)` bool, the rows that have not finished."""
        finished: npt.NDArray[np.bool_] = self.terminated | self.truncated
        return ~finished

    def write(self, row: int, observation: Any) -> None:
        """Store the observation of a row.

        Raises:
            ValueError: If it is not of its space's shape and kind.
        """
        if not isinstance(self.observations, dict):
            _store(self.observations, row, observation)
            return
        for key, array in self.observations.items():
            _store(array, row, observation[key])

    def check(self, actions: npt.ArrayLike, space: gymnasium.Space[Any]) -> npt.NDArray[Any]:
        """Actions `(n, *action)` for some rows, as an array.

        Args:
            actions: For all rows of `space`.
            space: The batched action space of these rows.

        Raises:
            ValueError: If they are not of the shape and kind of the batched action space, or
                outside of it where it holds integers. (Simulators may clip other numbers.)
        """
        actions, dtype = np.asarray(actions), self.actions.dtype
        fits = actions.shape == space.shape
        fits = fits and np.can_cast(actions.dtype, dtype, "same_kind")
        if fits and np.issubdtype(dtype, np.integer):
            fits = space.contains(actions.astype(dtype))
        if not fits:
            text = np.array2string(actions, threshold=20)
            raise ValueError(f"actions are {actions.dtype} {actions.shape} {text}, not of {space}")
        return actions


def _map_arrays(file: int, fields: list[Any]) -> list[npt.NDArray[Any]]:
    """Arrays of the given shapes and dtypes, one behind the other in the file."""
    offsets = [0]
    for shape, dtype in fields:
        size = int(np.prod(shape)) * dtype.itemsize
        offsets.append(offsets[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    if os.fstat(file).st_size < offsets[-1]:
        os.ftruncate(file, offsets[-1])
    memory = mmap.mmap(file, offsets[-1])
    return [
        np.ndarray(shape, dtype, buffer=memory, offset=offset)
        for (shape, dtype), offset in zip(fields, offsets, strict=False)
    ]


def _store(array: npt.NDArray[Any], row: int, value: Any) -> None:
    value = np.asarray(value)
    if value.shape != array.shape[1:] or not np.can_cast(value.dtype, array.dtype, "same_kind"):
        raise ValueError(
            f"an observation is {value.dtype} {value.shape}; its space says "
            f"{array.dtype} {array.shape[1:]}"
        )
    array[row] = value


def unnamed_file() -> int:
    """The descriptor of a file in memory that is gone with the last process which has it open."""
    if os.name != "posix":
        raise ConfigError("simulators in worker processes need Linux, macOS, or WSL on Windows")
    if hasattr(os, "memfd_create"):
        return os.memfd_create("rate-buffers")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
