"""Checks that settings share: each names the setting and what it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from datamodules.collector import FIRST_SEED
from rate.errors import ConfigError


def choice(name: str, value: str, kind: Any) -> None:
    """Refuse a value that is none of a `Literal`'s.

    Raises:
        ConfigError: If so.
    """
    if value not in get_args(kind):
        choices = ", ".join(get_args(kind))
        raise ConfigError(f"{name} is '{value}'; choose one of: {choices}.")


def episode_seeds(name: str, first: int, count: int) -> None:
    """Refuse seeds of scored episodes that there are not, or that data sets are made with.

    Args:
        name: The setting.
        first: The first of the seeds.
        count: How many follow each other.

    Raises:
        ConfigError: If so.
    """
    if first < 0 or first + count > FIRST_SEED:
        raise ConfigError(
            f"{name} is {first}, and {count} episodes have the seeds from there on; they must be "
            f"in [0, 2^40). Environments take no negative ones, and from 2^40 = {FIRST_SEED} on "
            "are those of the episodes that models learn from."
        )


def finite(name: str, value: float | None) -> None:
    """Refuse infinity and NaN; None is fine.

    Raises:
        ConfigError: If so.
    """
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}; it must be a finite number.")


def all_finite(settings: Mapping[str, Any], section: str = "") -> None:
    """Refuse infinity and NaN anywhere in nested settings: the files of a run are JSON, too.

    Raises:
        ConfigError: If so; names the setting.
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
    """Refuse a number below a minimum, and one that is not finite.

    Raises:
        ConfigError: If so.
    """
    if not value >= minimum:
        raise ConfigError(f"{name} is {value}; it must be at least {minimum}.")
    if value == math.inf:
        raise ConfigError(f"{name} is {value}; it must be a finite number.")
