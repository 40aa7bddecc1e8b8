"""Fixtures: tiny runs, as for the tests of training."""

from tests.trainers.conftest import _short_filler, data_root, make_config

__all__ = ["_short_filler", "data_root", "make_config"]
