"""The environments, plain Gymnasium. Importing this package registers their ids.

Modules of environments are imported when one is made, and simulators by those that need them.
"""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

import gymnasium

from rate.envs.spec import EnvironmentSpec
from rate.envs.tasks import TASKS
from rate.envs.tmaze import TMAZE_SPEC, TMaze, TMazeOracle, TMazeVector, tmaze_spec
from rate.errors import ConfigError
from rate.messages import did_you_mean
from rate.renamed import current_settings

__all__ = [
    "TMAZE_SPEC",
    "EnvironmentSpec",
    "TMaze",
    "TMazeOracle",
    "TMazeVector",
    "register",
    "tmaze_spec",
]

# Registered by name, so that importing this package does not import them.
_CLASSES = (
    "rate.envs.atari:Atari",
    "rate.envs.memory_maze:MemoryMaze",
    "rate.envs.minigrid_memory:MinigridMemory",
    "rate.envs.mujoco:Mujoco",
    "rate.envs.popgym:Popgym",
    "rate.envs.retrieval:Retrieval",
    "rate.envs.two_colors:TwoColors",
    *TASKS.values(),
)


def register(path: str) -> str:
    """Registers an environment's class with Gymnasium as `RATE/<Class>-v0`, unless it is already.

    Args:
        path: The class's import path, `module:Class`. Its settings are the dataclass
            `<Class>Options` of the same module.

    Returns:
        The id.

    Raises:
        ConfigError: If the id belongs to another class.
    """
    module, _, name = path.partition(":")
    gym_id, kwargs = f"RATE/{name}-v0", {"module": module, "name": name}
    known = gymnasium.registry.get(gym_id)
    if known is None:
        gymnasium.register(
            id=gym_id,
            entry_point="rate.envs:from_settings",
            vector_entry_point="rate.envs:vector_from_settings" if path in TASKS.values() else None,
            kwargs=kwargs,
            disable_env_checker=True,
        )
    elif known.kwargs != kwargs and known.entry_point != path:  # T-Maze has no settings
        raise ConfigError(
            f"{path} cannot be registered with Gymnasium as {gym_id}: another environment has this "
            "id. Give the class another name."
        )
    return gym_id


def from_settings(
    module: str, name: str, length: Any = None, render_mode: str | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """Returns an environment made from plain settings; `gymnasium.make` calls this.

    Args:
        module: Module of the environment's class.
        name: Name of the class.
        length: Its `length`, an integer or a range; None is the default of the class.
        render_mode: Accepted because Gymnasium may pass it; `render` works without it.
        options: Fields of the dataclass `<name>Options`, under current or former names.

    Raises:
        ConfigError: If a setting does not work, or a package is missing.
    """
    kind, arguments = _from_settings(module, name, length, options)
    env: gymnasium.Env[Any, Any] = kind(*arguments)
    return env


def vector_from_settings(
    num_envs: int, module: str, name: str, length: Any = None, **options: Any
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Returns the vector environment of a memory task; `gymnasium.make_vec` calls this.

    Args:
        num_envs: The number of rows.
        module: See `from_settings`.
        name: See `from_settings`.
        length: See `from_settings`.
        options: See `from_settings`.

    Raises:
        ConfigError: If a setting does not work.
    """
    kind, arguments = _from_settings(module, name, length, options)
    env: gymnasium.vector.VectorEnv[Any, Any, Any] = kind.make_vector(num_envs, *arguments)
    return env


def _from_settings(
    module: str, name: str, length: Any, options: dict[str, Any]
) -> tuple[Any, list[Any]]:
    """Returns an environment's class, and its settings and length as arguments."""
    found = importlib.import_module(module)
    kind = getattr(found, f"{name}Options")
    known = [field.name for field in fields(kind)]
    given = current_settings("env", options, known)
    for option in given:
        if option not in known:
            raise ConfigError(
                f"RATE/{name}-v0 has no setting '{option}'.{did_you_mean(option, known)} It has: "
                f"{', '.join(['length', *known])}."
            )
    settings = kind(**given)
    if length is None:
        return getattr(found, name), [settings]
    # JSON, and with it Minari, has lists where a range of lengths is a tuple
    return getattr(found, name), [settings, tuple(length) if isinstance(length, list) else length]


if "RATE/TMaze-v0" not in gymnasium.registry:
    gymnasium.register(
        id="RATE/TMaze-v0",
        entry_point="rate.envs.tmaze:TMaze",
        vector_entry_point="rate.envs.tmaze:TMazeVector",
    )
for _path in _CLASSES:
    register(_path)
