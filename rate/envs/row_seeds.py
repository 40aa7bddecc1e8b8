"""Episode seeds of the rows of a NumPy vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv

_WORD = (1 << 64) - 1


def row_seeds(
    env: VectorEnv[Any, Any, Any], seed: int | Sequence[int] | None
) -> npt.NDArray[np.uint64]:
    """`(N,)` episode seeds from the `seed` argument of `reset`.

    An integer gives row `i` the seed `seed + i` and starts the environment's generator anew;
    without a seed they come from that generator.

    Raises:
        ValueError: If there are not as many seeds as rows.
    """
    if seed is None:
        return env.np_random.integers(1 << 63, size=env.num_envs).astype(np.uint64)
    if isinstance(seed, (int, np.integer)):
        VectorEnv.reset(env, seed=int(seed))
        seed = [int(seed) + row for row in range(env.num_envs)]
    if len(seed) != env.num_envs:
        raise ValueError(f"got {len(seed)} seeds for {env.num_envs} environments")
    return np.array([int(value) & _WORD for value in seed], dtype=np.uint64)
