"""Environments that a program hands over as classes or functions, and the names that find them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rate.errors import ConfigError

MAIN = "__main__"
# By the names that runs have of them: what this process was given.
_HELD: dict[str, Callable[..., Any]] = {}


def held(name: str) -> Callable[..., Any] | None:
    """What this process was given under a name, if anything."""
    return _HELD.get(name)


def name_of(env: str | Callable[..., Any]) -> str:
    """The name of an environment, under which this process finds it from now on.

    It is an import path, `my_package.envs:MyEnv`, by which other processes find it too. Warns where
    they cannot.

    Args:
        env: A name already, or a class of environments, or a function that returns one.

    Raises:
        ConfigError: If it is neither.
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
    _HELD[path] = env
    return path


def _script() -> tuple[str, str]:
    """The module that the running program is to others, and why they cannot import it, if so."""
    main = sys.modules[MAIN]
    if (spec := getattr(main, "__spec__", None)) is not None:  # python -m package.module
        return str(spec.name), ""
    file = Path(getattr(main, "__file__", None) or "")
    if file.suffix != ".py" or not file.stem.isidentifier():
        return MAIN, "it is defined in no module"
    if "__name__" not in file.read_text(encoding="utf-8"):
        return file.stem, (
            f"whoever imports {file.name} runs it again. Put what it does below a line "
            'if __name__ == "__main__":'
        )
    return file.stem, ""
