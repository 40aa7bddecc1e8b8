"""SplitMix64, the project's one hash, and random numbers that are a function of a counter.

A random number that is a hash of what it is for (seed, episode, step) needs no generator state: it
is the same after a restart, in another row of a batch, and whatever was sampled before. See Salmon
et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", on counter-based generators.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Word = TypeVar("Word", int, Words)  # a Python integer, or an array of at least one axis

# SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators"): the
# increment, the two factors, the three shifts, and what keeps Python's integers modulo 2^64.
_CONSTANTS = (
    *(0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB),
    *(30, 27, 31),
    (1 << 64) - 1,
)
_FOR_ARRAYS = tuple(np.uint64(constant) for constant in _CONSTANTS)  # NumPy is slow with Python's


def splitmix64(words: Word) -> Word:
    """The 64-bit hash of an integer, or of every element of a uint64 array."""
    gamma, factor_1, factor_2, shift_1, shift_2, shift_3, mask = _constants(words)
    z = (words + gamma) & mask
    z = ((z ^ (z >> shift_1)) * factor_1) & mask
    z = ((z ^ (z >> shift_2)) * factor_2) & mask
    hashes: Word = z ^ (z >> shift_3)
    return hashes


def hash_counter(seeds: Word, counters: Word) -> Word:
    """31-bit hashes of a seed and a counter each; integers are taken modulo 2^64.

    Args:
        seeds: An integer, or `(N,)` uint64.
        counters: An integer, or `(N,)` or `(1,)` uint64.
    """
    gamma, _, factor, *_, mask = _constants(seeds)
    hashes: Word = splitmix64((seeds * factor + counters * gamma) & mask) >> 33
    return hashes


def _constants(words: object) -> tuple[Any, ...]:
    return _CONSTANTS if isinstance(words, int) else _FOR_ARRAYS


def hash_integers(*values: int) -> int:
    """The 63-bit hash of a sequence of integers, which are taken modulo 2^64."""
    state = 0
    for value in values:
        state = splitmix64(state + value)
    return state >> 1


def counter_uniforms(keys: Words, steps: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), `(B, count)`: a function of the key, the step and their index.

    Args:
        keys: `(B,)` hashes of the episodes.
        steps: `(B,)` steps within them.
        count: Numbers for each step.
    """
    index = (steps[:, None] * count + np.arange(count)).astype(np.uint64)  # (B, count)
    bits = splitmix64(keys[:, None] + _FOR_ARRAYS[0] * index)
    uniforms: NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniforms
