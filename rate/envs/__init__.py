"""The environments, plain Gymnasium. Importing this package registers their ids.

Simulators are only imported by the environments that need them, when they are made.
"""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

import gymnasium

from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import TMAZE_SPEC, TMaze, TMazeOracle, TMazeVector, tmaze_spec
from rate.renamed import current_settings

__all__ = ["TMAZE_SPEC", "EnvironmentSpec", "TMaze", "TMazeOracle", "TMazeVector", "tmaze_spec"]

# Gymnasium id: module, and the environment's class there; its settings are CLASSOptions.
_WITH_OPTIONS = {
    "RATE/Retrieval-v0": ("rate.envs.retrieval", "Retrieval"),
    "RATE/MinigridMemory-v0": ("rate.envs.minigrid_memory", "MinigridMemory"),
    "RATE/TwoColors-v0": ("rate.envs.two_colors", "TwoColors"),
    "RATE/MemoryMaze-v0": ("rate.envs.memory_maze", "MemoryMaze"),
    "RATE/Atari-v0": ("rate.envs.atari", "Atari"),
    "RATE/Mujoco-v0": ("rate.envs.mujoco", "Mujoco"),
    "RATE/Popgym-v0": ("rate.envs.popgym", "Popgym"),
}


def from_settings(
    module: str, name: str, length: Any = None, render_mode: str | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """What `gymnasium.make` calls: an environment of this package from plain settings.

    Raises:
        ConfigError: If a setting does not work, or a package is missing.
    """
    found = importlib.import_module(module)
    kind = getattr(found, f"{name}Options")
    settings = kind(**current_settings("env", options, [field.name for field in fields(kind)]))
    if length is None:
        env: gymnasium.Env[Any, Any] = getattr(found, name)(settings)
    else:  # JSON, and with it Minari, has lists where a range of lengths is a tuple
        env = getattr(found, name)(settings, tuple(length) if isinstance(length, list) else length)
    return env


if "RATE/TMaze-v0" not in gymnasium.registry:
    gymnasium.register(
        id="RATE/TMaze-v0",
        entry_point="rate.envs.tmaze:TMaze",
        vector_entry_point="rate.envs.tmaze:TMazeVector",
    )
    for _id, (_module, _name) in _WITH_OPTIONS.items():
        gymnasium.register(
            id=_id,
            entry_point="rate.envs:from_settings",
            kwargs={"module": _module, "name": _name},
            disable_env_checker=True,
        )
