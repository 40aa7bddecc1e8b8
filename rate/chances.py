"""Random numbers that are a function of what they are for, not of what was drawn before.

A policy samples with them, so that an episode's actions do not depend on the episodes beside it, on
the number of rows, or on a simulator that had to be started again in the middle of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood, 2014) in signed arithmetic, which wraps around just the same.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIXES = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)), (31, 1))


def mix(values: Tensor) -> Tensor:
    """A hash of int64 values, element by element."""
    values = values + _GAMMA
    for shift, factor in _MIXES:
        values = (values ^ _shift_right(values, shift)) * factor
    return values


def chances(keys: Tensor, steps: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1), `(B, count)` float64.

    Args:
        keys: `(B,)` int64, hashes of the episodes.
        steps: `(B,)` int64, steps within them.
        count: Numbers for each step.
    """
    index = steps[:, None] * count + torch.arange(count, device=steps.device)
    bits = mix(keys[:, None] + _GAMMA * index)
    return _shift_right(bits, 11).double() * 2.0**-53


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """A logical shift: zeros come in from the left."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
