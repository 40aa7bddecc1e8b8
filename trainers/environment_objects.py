"""Environments passed as classes or functions, registered under names in this process."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rate.errors import ConfigError

MAIN = "__main__"
# Environment name to the class or function that was passed to this process.
_OBJECTS: dict[str, Callable[..., Any]] = {}


def find_object(name: str) -> Callable[..., Any] | None:
    """Returns the class or function registered under a name; None if there is none."""
    return _OBJECTS.get(name)


def register_object(env: str | Callable[..., Any]) -> str:
    """Returns the name of an environment and registers the environment under it.

    The name is an import path, `my_package.envs:MyEnv`. Warns if other processes cannot import it.

    Args:
        env: A name, an environment class, or a function that returns an environment.

    Raises:
        ConfigError: If it is none of these.
    """
    if isinstance(env, str):
        return env
    if not callable(env):
        raise ConfigError(
            f"env is {type(env).__name__}; it must be a name, an environment's class, or a "
            "function that makes one. What that takes are settings: {'env.size': 9}."
        )
    name = getattr(env, "__qualname__", type(env).__qualname__)
    module = getattr(env, "__module__", MAIN)
    plain = ".".join(part for part in name.split(".") if part.isidentifier()) or "env"
    obstacle = "" if plain == name else "it is not defined at the top level of a module"
    if module == MAIN or not all(part.isidentifier() for part in module.split(".")):
        module, reason = _script()
        obstacle = obstacle or reason
    if obstacle:
        warnings.warn(
            f"{name} is known to this process alone: {obstacle}. Here the run is evaluated and "
            "continued, but nowhere else.",
            stacklevel=3,
        )
    path = f"{module}:{plain}"
    _OBJECTS[path] = env
    return path


def _script() -> tuple[str, str]:
    """Returns the import name of the main module, and why it cannot be imported, if so."""
    main = sys.modules[MAIN]
    if (spec := getattr(main, "__spec__", None)) is not None:  # python -m package.module
        return str(spec.name), ""
    file = Path(getattr(main, "__file__", None) or "")
    if file.suffix != ".py" or not file.stem.isidentifier():
        return MAIN, "it is defined in no module"
    if "__name__" not in file.read_text(encoding="utf-8"):
        return file.stem, (
            f"an import of {file.name} runs it again. Put what it does below a line "
            'if __name__ == "__main__":'
        )
    return file.stem, ""
