"""Scales by which components of vectors are normalised.

A scale is estimated from data (a standard deviation) or given (half the range between two bounds).
It has a lower limit, so that rounding or a value outside the data does not become huge.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

ROUNDING = 1e-6
"""Values that differ by less, relative to their size (at least 1), are the same in float32."""

LEAST = 1e-3
"""Least scale of an observation: 0.1 beyond the data is at most 100 to a model."""

WIDEST = 1e6
"""Half a range from which on bounds count as infinite: float32 rounds such actions to 0.1."""


def unit_of(centre: Tensor, spread: Tensor, least: float = 0.0) -> Tensor:
    """The divisor of each component, `(D,)`.

    Args:
        centre: `(D,)`, the mean or the middle.
        spread: `(D,)`, the standard deviation or half the range, in the units of the component.
        least: A smaller spread counts as this.

    Returns:
        The spread. A component whose spread is no more than float32's rounding counts as constant:
        its divisor is 1, or the rounding where that is greater.

    Raises:
        ValueError: If a centre is not finite, or a spread is negative or not finite.
    """
    _refuse("centre", centre, ~torch.isfinite(centre), "a finite number")
    _refuse("spread", spread, ~(torch.isfinite(spread) & (spread >= 0)), "finite and not below 0")
    alone = _rounding(centre).clamp(min=1)
    return torch.where(constant(centre, spread), alone, spread.clamp(min=least))


def constant(centre: Tensor, spread: Tensor) -> Tensor:
    """Which components vary by no more than float32's rounding, `(D,)` bool."""
    return spread <= _rounding(centre)


def _rounding(centre: Tensor) -> Tensor:
    return ROUNDING * centre.abs().clamp(min=1)


def box_scale(space: gym.spaces.Box) -> tuple[Tensor, Tensor, Tensor]:
    """Middle, half the range, and whether there are bounds on both sides: `(D,)` each.

    Without bounds, or with bounds farther apart than `WIDEST`, middle and half are 0 and 1.
    """
    low, high = (np.asarray(bound, dtype=np.float64).ravel() for bound in (space.low, space.high))
    half = high / 2 - low / 2  # so that no range is too wide for a number
    bounded = np.isfinite(half) & (half <= WIDEST)
    half = np.where(bounded, half, 1)
    middle = np.where(bounded, np.where(bounded, low, 0) + half, 0)
    centre, spread = (torch.tensor(part, dtype=torch.float32) for part in (middle, half))
    return centre, unit_of(centre, spread), torch.tensor(bounded)


def _refuse(name: str, values: Tensor, wrong: Tensor, wanted: str) -> None:
    if wrong.any():
        index = int(wrong.flatten().nonzero()[0])
        value = values.flatten()[index].item()
        raise ValueError(f"The {name} of component {index} is {value}; it must be {wanted}.")
