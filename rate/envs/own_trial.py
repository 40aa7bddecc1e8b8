"""Checks a user environment before training: creates it once, resets it and takes one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rate.envs.own import Env, Maker, make_own, time_limit
from rate.envs.spec import space_to_dict
from rate.envs.worker_vector import Elsewhere, WorkerVectorEnv
from rate.errors import ConfigError, UserError
from rate.spaces import check_action_space, check_observation_space

# Attributes in which environments keep a time limit of their own.
_LIMITS = ("max_episode_steps", "_max_episode_steps", "max_steps", "horizon")


@dataclass(frozen=True)
class Description:
    """Spaces and time limit of an environment, found by creating it once.

    Attributes:
        observation_space: Space of one observation.
        action_space: Space of one action.
        max_steps: Its own time limit in steps; None if it has none.
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    max_steps: int | None


def describe(reference: str, maker: Maker, settings: Mapping[str, Any]) -> Description:
    """Creates an environment, takes one step in it, and returns its description.

    Raises:
        ConfigError: If it cannot be created or violates Gymnasium's interface; the message says
            how.
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
    """Returns the description of an environment of another Python, after one step in it.

    Raises:
        UserError: If it cannot be created or stepped there; the message has its exception.
    """
    try:
        vector = WorkerVectorEnv(there, num_envs=1, num_workers=1)
    except UserError:
        raise
    except ValueError as error:  # unsupported spaces
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
    """Resets an environment, takes one step, and checks what both return."""
    place = f"env={reference}"
    try:
        started: Any = env.reset(seed=0)
        if not (isinstance(started, tuple) and len(started) == 2):
            raise ConfigError(
                f"{place}: reset(seed=...) has returned {type(started).__name__}; Gymnasium's "
                "returns a pair, the observation and an info dictionary."
            )
        _check_observation(place, env, started[0])
        env.action_space.seed(0)
        stepped: Any = env.step(env.action_space.sample())
        if not (isinstance(stepped, tuple) and len(stepped) == 5):
            raise ConfigError(
                f"{place}: step() has returned {len(stepped) if isinstance(stepped, tuple) else 1} "
                "values; Gymnasium's returns five: observation, reward, terminated, truncated, "
                "info. An environment of the old package gym runs as it is under a Python that "
                "has it: --env.python /path/to/python."
            )
        _check_observation(place, env, stepped[0])
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{place} cannot be played: {type(error).__name__}: {error}") from error


def _check_observation(place: str, env: Env, observation: Any) -> None:
    space = env.observation_space
    parts = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"": space}
    values = observation if isinstance(space, gymnasium.spaces.Dict) else {"": observation}
    is_table = isinstance(values, Mapping)
    for key, part in parts.items():
        value = np.asarray(values[key]) if is_table and key in values else None
        name = f"observation['{key}']" if key else "observation"
        if value is None:
            raise ConfigError(f"{place}: the {name} is missing, which its observation_space has.")
        if value.shape != part.shape or not _casts(value, part):
            raise ConfigError(
                f"{place}: the {name} is {value.dtype} {value.shape}, but its space is {part}."
            )


def _casts(value: npt.NDArray[Any], space: gymnasium.Space[Any]) -> bool:
    return space.dtype is not None and np.can_cast(value.dtype, space.dtype, "same_kind")


def _check_spaces(place: str, *spaces: gymnasium.Space[Any]) -> None:
    """Checks that models support the observation and the action space."""
    try:
        for space, check in zip(spaces, (check_observation_space, check_action_space), strict=True):
            space_to_dict(space)
            check(space)
    except ValueError as error:
        is_tuple = any(isinstance(space, gymnasium.spaces.Tuple) for space in spaces)
        hint = " Make a Dict of a Tuple, whose parts have names." if is_tuple else ""
        raise ConfigError(f"{place}: {str(error).rstrip('.')}.{hint}") from error


def _own_limit(env: Env) -> int | None:
    """Returns the time limit of an environment in steps, or None if it states none."""
    limit = time_limit(env)
    limits = [limit._max_episode_steps] if limit is not None else []
    limits += [getattr(env.unwrapped, name, None) for name in _LIMITS]
    return next((int(n) for n in limits if isinstance(n, (int, np.integer)) and n > 0), None)
