"""Errors that a user can correct."""

from __future__ import annotations


class UserError(ValueError):
    """An error outside the code; the message names it, its place and what to do."""


class ConfigError(UserError):
    """A setting that cannot work."""


class WeightsError(UserError):
    """A folder that does not hold a model this version can load."""
