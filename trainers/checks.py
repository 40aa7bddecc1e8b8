"""Shared checks of settings; each error names the setting and the allowed values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from datamodules.collector import FIRST_SEED
from rate.errors import ConfigError


def choice(name: str, value: str, kind: Any) -> None:
    """Check that a value is one of the values of a `Literal`.

    Raises:
        ConfigError: If it is not.
    """
    if value not in get_args(kind):
        choices = ", ".join(get_args(kind))
        raise ConfigError(f"{name} is '{value}'; choose one of: {choices}.")


def episode_seeds(name: str, first: int, count: int) -> None:
    """Check that seeds of evaluation episodes are valid and disjoint from those of data sets.

    Args:
        name: The setting.
        first: The first seed.
        count: Number of consecutive seeds.

    Raises:
        ConfigError: If a seed is outside of `[0, 2^40)`.
    """
    if first < 0 or first + count > FIRST_SEED:
        raise ConfigError(
            f"{name} is {first}, and {count} episodes have the seeds from there on; they must be "
            f"in [0, 2^40). Environments take no negative ones, and from 2^40 = {FIRST_SEED} on "
            "are those of the episodes that models learn from."
        )


def finite(name: str, value: float | None) -> None:
    """Check that a number is finite; None is allowed.

    Raises:
        ConfigError: If it is infinite or NaN.
    """
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}; it must be a finite number.")


def all_finite(settings: Mapping[str, Any], section: str = "") -> None:
    """Check that all numbers in nested settings are finite, since JSON cannot store others.

    Raises:
        ConfigError: If one is not; the message names the setting.
    """
    for key, value in settings.items():
        name = f"{section}{key}"
        if isinstance(value, Mapping):
            all_finite(value, f"{name}.")
            continue
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, float):
                finite(name, number)


def at_least(name: str, value: float, minimum: int) -> None:
    """Check that a number is finite and not below a minimum.

    Raises:
        ConfigError: If it is not.
    """
    if not value >= minimum:
        raise ConfigError(f"{name} is {value}; it must be at least {minimum}.")
    if value == math.inf:
        raise ConfigError(f"{name} is {value}; it must be a finite number.")
