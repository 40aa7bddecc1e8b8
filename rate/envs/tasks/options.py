"""Settings that every memory task has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rate.errors import ConfigError


@dataclass(frozen=True)
class TaskOptions:
    """Settings that every memory task has.

    Attributes:
        privileged: Observations also hold the privileged state, all that is hidden (for an
            Oracle-DT, and to tell what memory is worth).
    """

    privileged: bool = False

    def check_count(self, name: str, minimum: int, maximum: int | None = None) -> None:
        """Raise a `ConfigError` if a setting is no whole number of at least `minimum`."""
        value = getattr(self, name)
        most = "" if maximum is None else f" and at most {maximum}"
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < minimum or (maximum is not None and value > maximum):
            raise ConfigError(
                f"env.{name} is {value!r}; it must be a whole number of at least {minimum}{most}."
            )

    def check_choice(self, name: str, choices: Sequence[str]) -> None:
        """Raise a `ConfigError` if a setting is none of the choices."""
        value = getattr(self, name)
        if value not in choices:
            raise ConfigError(f"env.{name} is {value!r}; choose one of: {', '.join(choices)}.")
