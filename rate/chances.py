"""Random numbers that are a function of what they are for, not of what was drawn before.

A policy samples with them, so that an episode's actions do not depend on the episodes beside it, on
the number of rows, or on a simulator that had to be started again in the middle of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

# SplitMix64 (Steele, Lea and Flood, 2014).
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXES = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
    (np.uint64(31), np.uint64(1)),
)


def mix(values: Words) -> Words:
    """A hash of the words of an array, element by element."""
    values = values + _GAMMA
    for shift, factor in _MIXES:
        values = (values ^ (values >> shift)) * factor
    return values


def chances(keys: Words, steps: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), `(B, count)`.

    Args:
        keys: `(B,)` hashes of the episodes.
        steps: `(B,)` steps within them.
        count: Numbers for each step.
    """
    index = steps[:, None] * count + np.arange(count)
    bits = mix(keys[:, None] + _GAMMA * index.astype(np.uint64))
    drawn: NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn
