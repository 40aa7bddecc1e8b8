"""User environments, named by a Gymnasium id or by the import path of a factory.

A factory is a callable that takes settings as keyword arguments and returns an environment: a
function, or the environment's class. An id may name the module that registers it, in Gymnasium's
form `my_package:MyEnv-v0`.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import TimeLimit

from rate.errors import ConfigError
from rate.messages import did_you_mean
from rate.registry import import_module, import_path

Maker = EnvSpec | Callable[..., Any]
Env = gymnasium.Env[Any, Any]
_PLAIN = (str, int, float, bool, type(None))
_NEAR = 3


def find_maker(reference: str) -> Maker:
    """Returns the Gymnasium specification or the factory of an environment.

    Args:
        reference: `CartPole-v1`, `my_package:MyEnv-v0`, or `my_package.envs:make_env`.

    Raises:
        ConfigError: If it is not found; the message says what is missing and what to do.
    """
    module, colon, name = reference.partition(":")
    if colon:
        import_module(module, f"env={reference}")
        is_path = all(part.isidentifier() for part in [*module.split("."), *name.split(".")])
        if is_path and name not in gymnasium.registry:
            found = import_path(reference, "env")
            if not callable(found):
                raise ConfigError(
                    f"env={reference} is {found!r}; it must be an environment's class, or a "
                    "function that returns an environment."
                )
            maker: Callable[..., Any] = found
            return maker
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium warns of newer versions of an id
            return gymnasium.spec(name if colon else reference)
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(name or reference, gymnasium.registry, n=_NEAR)
        hint = f" Near it there are: {', '.join(near)}." if near else ""
        where = f" after importing '{module}'" if colon else ""
        raise ConfigError(
            f"There is no environment '{reference}': Gymnasium has no such id{where}.{hint} An id "
            "of another package is found once its module is named, my_package:MyEnv-v0, and "
            "anything else by its import path, my_package.envs:make_env."
        ) from error


def check_settings(reference: str, maker: Maker, settings: Mapping[str, Any]) -> None:
    """Checks that an environment takes these settings, and that JSON can hold their values.

    Raises:
        ConfigError: If a setting is unknown, missing or not plain; the message names it.
    """
    for name, value in settings.items():
        if not _is_plain(value):
            raise ConfigError(
                f"env.{name} is {value!r}; a setting of an environment is a number, a text, true, "
                "false, null, or a list or table of those."
            )
    creator: Any = maker
    given = dict.fromkeys(settings)
    if isinstance(maker, EnvSpec):
        given |= dict.fromkeys(maker.kwargs)
        try:
            creator = _creator(maker)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"env={reference}: Gymnasium cannot load {maker.entry_point}: {error}. Install the "
                "package that it needs."
            ) from error
    try:
        parameters = inspect.signature(creator).parameters
    except (TypeError, ValueError):  # compiled code may have no signature
        return
    kinds = inspect.Parameter
    named = (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    known = [name for name, parameter in parameters.items() if parameter.kind in named]
    if not any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters.values()):
        for name in settings:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                hint = did_you_mean(name, known, "env.")
                raise ConfigError(f"There is no setting env.{name} of {reference}: {takes}.{hint}")
    for name in known:
        if parameters[name].default is kinds.empty and name not in given:
            raise ConfigError(f"{reference} needs the setting env.{name}: --env.{name}=VALUE.")


def make_own(
    maker: Maker,
    settings: Mapping[str, Any],
    max_steps: int | None = None,
    render_mode: str | None = None,
) -> Env:
    """Returns a user environment.

    Args:
        maker: See `find_maker`.
        settings: Its keyword arguments.
        max_steps: Number of steps after which an episode is truncated; None keeps the
            environment's own time limit.
        render_mode: Gymnasium's.

    Raises:
        ConfigError: If a factory returns something else than a `gymnasium.Env`.
    """
    if isinstance(maker, EnvSpec):
        how: dict[str, Any] = {"max_episode_steps": max_steps, "render_mode": render_mode}
        return gymnasium.make(maker, disable_env_checker=True, **how, **settings)
    shown = {} if render_mode is None else {"render_mode": render_mode}
    env: Any = maker(**{**shown, **settings})
    if not isinstance(env, gymnasium.Env):
        kind = f"{type(env).__module__}.{type(env).__qualname__}"
        raise ConfigError(
            f"{_name_of(maker)} has returned {kind}, which is no gymnasium.Env. Derive its "
            "class from gymnasium.Env; an environment of the old package gym runs as it is under a "
            "Python that has it, --env.python /path/to/python."
        )
    if max_steps is None:
        return env
    limit = time_limit(env)
    if limit is None:
        return TimeLimit(env, max_steps)
    limit._max_episode_steps = max_steps
    return env


def drawing_mode(maker: Maker) -> str | None:
    """Returns `rgb_array` if the environment's metadata has this render mode, else None."""
    metadata = getattr(_creator(maker), "metadata", None)
    modes = metadata.get("render_modes", ()) if isinstance(metadata, Mapping) else ()
    return "rgb_array" if "rgb_array" in modes else None


def _creator(maker: Maker) -> Any:
    """Returns the callable that makes an environment: its class, or a function."""
    if not isinstance(maker, EnvSpec):
        return maker
    point = maker.entry_point
    return load_env_creator(point) if isinstance(point, str) else point


def time_limit(env: Env) -> Any:
    """Returns the `TimeLimit` wrapper of an environment, or None."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            return env
        env = env.env
    return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return isinstance(value, _PLAIN)


def _name_of(maker: Any) -> str:
    return getattr(maker, "__qualname__", repr(maker))
