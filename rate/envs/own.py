"""Environments of users: Gymnasium's ids, and factories by their import path.

A factory is anything that returns an environment when it is called with its settings as keywords: a
function, or the environment's class. An id may name the module that registers it, as Gymnasium has
it: `my_package:MyEnv-v0`.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import TimeLimit

from rate.envs.spec import space_to_dict
from rate.envs.workers import Elsewhere, WorkerVector
from rate.errors import ConfigError, UserError
from rate.registry import did_you_mean, import_module, import_path
from rate.spaces import check_action_space, check_observation_space

Maker = EnvSpec | Callable[..., Any]
Env = gymnasium.Env[Any, Any]
_PLAIN = (str, int, float, bool, type(None))
_NEAR = 3
# How environments that have a time limit in themselves call it.
_LIMITS = ("max_episode_steps", "_max_episode_steps", "max_steps", "horizon")


@dataclass(frozen=True)
class Description:
    """What an environment is, as it was found by making it once.

    Attributes:
        observation_space: Of one observation.
        action_space: Of one action.
        max_steps: Its own time limit; None if it has none.
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    max_steps: int | None


def find_maker(reference: str) -> Maker:
    """What makes the environment that a person names.

    Args:
        reference: `CartPole-v1`, `my_package:MyEnv-v0`, or `my_package.envs:make_env`.

    Raises:
        ConfigError: If there is none; says what is missing, and what to do.
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
            warnings.simplefilter("ignore")  # of newer versions of an id
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
    """Refuse settings that an environment does not take, or that a file could not hold.

    Raises:
        ConfigError: If there is one, or one that it needs is missing; names it.
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
    except (TypeError, ValueError):  # compiled code need not have one
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
    """One environment of a user.

    Args:
        maker: See `find_maker`.
        settings: Keywords for it.
        max_steps: Steps after which an episode is truncated; None leaves the environment's own
            time limit as it is.
        render_mode: Gymnasium's.

    Raises:
        ConfigError: If what is made is no environment of Gymnasium's.
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
    limit = _time_limit(env)
    if limit is None:
        return TimeLimit(env, max_steps)
    limit._max_episode_steps = max_steps
    return env


def drawing_mode(maker: Maker) -> str | None:
    """The render mode in which an environment gives pictures, if it says that it has one."""
    metadata = getattr(_creator(maker), "metadata", None)
    modes = metadata.get("render_modes", ()) if isinstance(metadata, Mapping) else ()
    return "rgb_array" if "rgb_array" in modes else None


def _creator(maker: Maker) -> Any:
    """What is called for an environment: its class, or a function."""
    if not isinstance(maker, EnvSpec):
        return maker
    point = maker.entry_point
    return load_env_creator(point) if isinstance(point, str) else point


def describe(reference: str, maker: Maker, settings: Mapping[str, Any]) -> Description:
    """Make an environment once, and take one step in it.

    Raises:
        ConfigError: If it cannot be made, or does not keep to Gymnasium's interface; says how.
    """
    try:
        env = make_own(maker, settings)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"env={reference} could not be made: {type(error).__name__}: {error}"
        ) from error
    try:
        found = Description(env.observation_space, env.action_space, _own_limit(env))
        _check_spaces(f"env={reference}", found.observation_space, found.action_space)
        _try(reference, env)
        return found
    finally:
        env.close()


def describe_elsewhere(there: Elsewhere) -> Description:
    """What an environment under another Python is, found by one step in it.

    Raises:
        UserError: If it cannot be made or played there; says what it raised.
    """
    try:
        vector = WorkerVector(there, num_envs=1, num_workers=1)
    except UserError:
        raise
    except ValueError as error:  # of its spaces
        raise ConfigError(f"{there}: {error}.") from error
    try:
        vector.reset(seed=[0])
        vector.action_space.seed(0)
        vector.step(vector.action_space.sample())
        spaces = vector.single_observation_space, vector.single_action_space
        _check_spaces(str(there), *spaces)
        return Description(*spaces, vector.max_steps)
    finally:
        vector.close()


def _try(reference: str, env: Env) -> None:
    """One reset and one step, of which the form is checked."""
    told = f"env={reference}"
    try:
        started: Any = env.reset(seed=0)
        if not (isinstance(started, tuple) and len(started) == 2):
            raise ConfigError(
                f"{told}: reset(seed=...) has returned {type(started).__name__}; Gymnasium's "
                "returns a pair, the observation and an info dictionary."
            )
        _check_observation(told, env, started[0])
        env.action_space.seed(0)
        stepped: Any = env.step(env.action_space.sample())
        if not (isinstance(stepped, tuple) and len(stepped) == 5):
            raise ConfigError(
                f"{told}: step() has returned {len(stepped) if isinstance(stepped, tuple) else 1} "
                "values; Gymnasium's returns five: observation, reward, terminated, truncated, "
                "info. An environment of the old package gym runs as it is under a Python that "
                "has it: --env.python /path/to/python."
            )
        _check_observation(told, env, stepped[0])
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{told} cannot be played: {type(error).__name__}: {error}") from error


def _check_observation(told: str, env: Env, observation: Any) -> None:
    space = env.observation_space
    parts = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"": space}
    values = observation if isinstance(space, gymnasium.spaces.Dict) else {"": observation}
    is_table = isinstance(values, Mapping)
    for key, part in parts.items():
        value = np.asarray(values[key]) if is_table and key in values else None
        name = f"observation['{key}']" if key else "observation"
        if value is None:
            raise ConfigError(f"{told}: the {name} is missing, which its observation_space has.")
        if value.shape != part.shape or not _casts(value, part):
            raise ConfigError(
                f"{told}: the {name} is {value.dtype} {value.shape}, but its space is {part}."
            )


def _casts(value: npt.NDArray[Any], space: gymnasium.Space[Any]) -> bool:
    return space.dtype is not None and np.can_cast(value.dtype, space.dtype, "same_kind")


def _check_spaces(told: str, *spaces: gymnasium.Space[Any]) -> None:
    """Refuse spaces that no model sees or acts in."""
    try:
        for space, check in zip(spaces, (check_observation_space, check_action_space), strict=True):
            space_to_dict(space)
            check(space)
    except ValueError as error:
        is_tuple = any(isinstance(space, gymnasium.spaces.Tuple) for space in spaces)
        hint = " Make a Dict of a Tuple, whose parts have names." if is_tuple else ""
        raise ConfigError(f"{told}: {str(error).rstrip('.')}.{hint}") from error


def _time_limit(env: Env) -> Any:
    """The wrapper that truncates episodes, if there is one."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            return env
        env = env.env
    return None


def _own_limit(env: Env) -> int | None:
    """After how many steps an environment ends its episodes, if it says so."""
    limit = _time_limit(env)
    told = [limit._max_episode_steps] if limit is not None else []
    told += [getattr(env.unwrapped, name, None) for name in _LIMITS]
    return next((int(n) for n in told if isinstance(n, (int, np.integer)) and n > 0), None)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return isinstance(value, _PLAIN)


def _name_of(maker: Any) -> str:
    return getattr(maker, "__qualname__", repr(maker))
