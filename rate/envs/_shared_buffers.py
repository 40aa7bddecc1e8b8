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
    """The arrays that parent and workers share, in one memory-mapped, unnamed file.

    The system frees an unnamed file with the last process that has it open, also after a crash. It
    is not subject to the size limit of /dev/shm in containers.

    Args:
        file: Descriptor of the file, which is enlarged to the required size.
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
        ValueError: If a space is of an unsupported kind.
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
        """`(N,)` bool, True for rows that have not finished."""
        finished: npt.NDArray[np.bool_] = self.terminated | self.truncated
        return ~finished

    def write(self, row: int, observation: Any) -> None:
        """Store the observation of a row.

        Raises:
            ValueError: If it does not have the shape and kind of its space.
        """
        if not isinstance(self.observations, dict):
            store(self.observations, row, observation)
            return
        for key, array in self.observations.items():
            store(array, row, observation[key])

    def check(self, actions: npt.ArrayLike, space: gymnasium.Space[Any]) -> npt.NDArray[Any]:
        """Returns actions `(n, *action)` for `n` rows as an array, after checking them.

        Args:
            actions: The actions of the rows.
            space: The batched action space of the rows.

        Raises:
            ValueError: If the actions do not have the shape and kind of `space`, or integer actions
                are out of bounds. Continuous actions out of bounds pass: simulators may clip them.
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
    """Returns consecutive arrays of the given `(shape, dtype)` in the file, 64-byte aligned."""
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


def store(array: npt.NDArray[Any], row: int, value: Any) -> None:
    """Write an observation into its row of an array.

    Raises:
        ValueError: If it does not have the shape and kind of the rows.
    """
    value = np.asarray(value)
    if value.shape != array.shape[1:] or not np.can_cast(value.dtype, array.dtype, "same_kind"):
        raise ValueError(
            f"an observation is {value.dtype} {value.shape}; its space says "
            f"{array.dtype} {array.shape[1:]}"
        )
    array[row] = value


def unnamed_file() -> int:
    """Returns the descriptor of an unnamed file, in memory if the system supports that.

    Raises:
        ConfigError: On Windows.
    """
    if os.name != "posix":
        raise ConfigError("simulators in worker processes need Linux, macOS, or WSL on Windows")
    if hasattr(os, "memfd_create"):
        return os.memfd_create("rate-buffers")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
