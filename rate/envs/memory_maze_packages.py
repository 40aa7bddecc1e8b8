"""Imports the packages of Memory Maze: missing packages, absl warnings, the old `gym`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium import spaces

from rate.advice import install
from rate.envs.headless import choose_renderer, no_renderer
from rate.errors import ConfigError

_MODULES = (
    "dm_control.locomotion.arenas.labmaze_textures",
    "dm_control.composer",
    "dm_control.mujoco.engine",
    "mujoco",
)


def check_packages() -> None:
    """Checks that the simulator's packages are installed.

    Raises:
        ConfigError: If one is missing; the message says how to install it.
    """
    missing = [name for name in ("memory_maze", "dm_control", "mujoco") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Memory Maze needs {' and '.join(missing)}. Install it with: {install('memory-maze')}"
        )


def import_packages() -> list[Any]:
    """Returns the simulator's modules: `memory_maze.maze`, then those of `_MODULES`.

    Raises:
        ConfigError: If a package is missing or MuJoCo cannot render.
    """
    check_packages()
    choose_renderer()
    try:
        with _gymnasium_as_gym():
            maze = import_module("memory_maze.maze")
        return [maze, *map(import_module, _MODULES)]
    except (ImportError, AttributeError, RuntimeError) as error:
        # PyOpenGL raises AttributeError if an OpenGL library is missing.
        gl = os.environ.get("MUJOCO_GL")
        raise no_renderer(f"with MUJOCO_GL={gl}, {type(error).__name__}: {error}") from error


@contextmanager
def _gymnasium_as_gym() -> Iterator[None]:
    """Replaces `gym` by Gymnasium while `memory_maze` is imported, if `gym` is not installed.

    The package needs the unmaintained `gym` for a wrapper and registrations that are not used
    here. Registering has no effect, and the replacement is removed afterwards.
    """
    if "gym" in sys.modules or find_spec("gym") is not None:
        yield
        return
    registration = ModuleType("gym.envs.registration")
    registration.__dict__["register"] = lambda **_: None
    names = {
        "gym": gymnasium,
        "gym.spaces": spaces,
        "gym.envs": gymnasium.envs,
        "gym.envs.registration": registration,
    }
    sys.modules.update(names)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


@contextmanager
def without_absl_warnings() -> Iterator[None]:
    """Silences absl: dm_control warns at each reset that the ball has no free joint."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
