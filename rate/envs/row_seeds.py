"""Seeds of the rows of a vector environment."""

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
    """Returns the episode seeds `(N,)` of a call `reset(seed=seed)`.

    An integer gives row `i` the seed `seed + i` and seeds the environment's generator. None samples
    the seeds from that generator.

    Raises:
        ValueError: If the number of seeds is not that of the rows.
    """
    if seed is None:
        return env.np_random.integers(1 << 63, size=env.num_envs).astype(np.uint64)
    if isinstance(seed, (int, np.integer)):
        VectorEnv.reset(env, seed=int(seed))
        seed = [int(seed) + row for row in range(env.num_envs)]
    if len(seed) != env.num_envs:
        raise ValueError(f"got {len(seed)} seeds for {env.num_envs} environments")
    return np.array([int(value) & _WORD for value in seed], dtype=np.uint64)
