"""The environments, plain Gymnasium. Importing this package registers their ids."""

from __future__ import annotations

import gymnasium

from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import TMAZE_SPEC, TMaze, TMazeOracle, TMazeVector, tmaze_spec

__all__ = ["TMAZE_SPEC", "EnvironmentSpec", "TMaze", "TMazeOracle", "TMazeVector", "tmaze_spec"]

if "RATE/TMaze-v0" not in gymnasium.registry:
    gymnasium.register(
        id="RATE/TMaze-v0",
        entry_point="rate.envs.tmaze:TMaze",
        vector_entry_point="rate.envs.tmaze:TMazeVector",
    )
