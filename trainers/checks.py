"""Checks that settings share: each names the setting and what it may be."""

from __future__ import annotations

import math
from typing import Any, get_args

from rate.errors import ConfigError


def choice(name: str, value: str, kind: Any) -> None:
    """Refuse a value that is none of a `Literal`'s.

    Raises:
        ConfigError: If so.
    """
    if value not in get_args(kind):
        choices = ", ".join(get_args(kind))
        raise ConfigError(f"{name} is '{value}'; choose one of: {choices}.")


def at_least(name: str, value: float, minimum: int) -> None:
    """Refuse a number below a minimum, and one that is not finite.

    Raises:
        ConfigError: If so.
    """
    if not value >= minimum:
        raise ConfigError(f"{name} is {value}; it must be at least {minimum}.")
    if value == math.inf:
        raise ConfigError(f"{name} is {value}; it must be a finite number.")
