"""Errors that the person at the keyboard can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Something outside the code is wrong; the message names it, its place and the way out."""


class ConfigError(UserError):
    """A setting that cannot work."""


class WeightsError(UserError):
    """A folder that does not hold a model this version can load."""
