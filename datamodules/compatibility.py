"""Compatibility of a data set with a model: its task, observations, actions and spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces

from datamodules.episodes import Array, DatasetError, observation_spaces
from datamodules.store import Store, differ_in_bounds
from rate.advice import command
from rate.envs.frame_stack import stacked_space
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.spaces import (
    check_action_space,
    check_observation_space,
    choices_of,
    differences,
)

_TASKS = ("task", "game")  # options of environments that name the task


def privileged_state(store: Store) -> Array:
    """Returns the privileged state at each step of a store, `(S, *privileged)`.

    Raises:
        DatasetError: If the data have none.
    """
    observations = store.observations
    if not isinstance(observations, dict) or "privileged" not in observations:
        raise DatasetError(
            f"{store.path}: loss.auxiliary_state_weight needs the privileged state, but the "
            "observations of the data have no part 'privileged'; set "
            "loss.auxiliary_state_weight=0, or collect the data here"
        )
    return observations["privileged"]


def single_frames(store: Store, spec: EnvironmentSpec) -> gymnasium.Space[Any]:
    """Returns the space of the single frames that observations of `spec` are stacked from.

    Without frame stacking it is the observation space of `spec`.
    """
    if spec.frame_stack > 1:
        for part in observation_spaces(store.spec.observation_space).values():
            if (
                isinstance(part, spaces.Box)
                and len(part.shape) in (2, 3)
                and stacked_space(part, spec.frame_stack) == spec.observation_space
            ):
                return part
    return spec.observation_space


def check_task(store: Store, spec: EnvironmentSpec) -> None:
    """Checks that the data are of the task of `spec`; other tasks may have the same spaces.

    Raises:
        DatasetError: If they are of another task.
    """
    for name in _TASKS:
        found, expected = (str(known.options.get(name, "")) for known in (store.spec, spec))
        if found and expected and found.lower() != expected.lower():
            raise DatasetError(
                f"{store.path}: the data are of {found}, but env.{name} is {expected}; "
                f"leave env.{name} out, or take other data"
            )


def check_actions(store: Store, spec: EnvironmentSpec) -> None:
    """Checks that every action of the data is an action of `spec`.

    Raises:
        DatasetError: If the action spaces are incompatible.
    """
    expected, found = spec.action_space, store.spec.action_space
    choices = choices_of(expected)  # equal where other kinds of spaces have the same values
    same = expected == found or (choices is not None and choices == choices_of(found))
    if not same and not _includes_actions(found, expected):
        raise DatasetError(
            f"{store.path}: the action_space of the data is {found}, but {spec.name} has "
            f"{expected} (the data have {'; '.join(differences(found, expected))}); "
            f"`{command('convert')} --environment` brings data to its form (without --keep-actions)"
        )


def is_compatible(found: EnvironmentSpec, expected: EnvironmentSpec) -> bool:
    """Whether data of one environment can be used to train a model for another.

    The spaces need not be equal: a model may observe one key of a dictionary, or stacked frames.
    """
    parts = observation_spaces(found.observation_space).values()
    space = expected.observation_space
    seen = expected.frame_stack > 1 or any(
        part == space or differ_in_bounds(part, space) for part in (found.observation_space, *parts)
    )
    choices = choices_of(expected.action_space)
    same = choices is not None and choices == choices_of(found.action_space)
    return seen and (same or _includes_actions(found.action_space, expected.action_space))


def _includes_actions(found: gymnasium.Space[Any], expected: gymnasium.Space[Any]) -> bool:
    """Whether the actions of the data are a subset of those of the environment."""
    if isinstance(found, spaces.Discrete) and isinstance(expected, spaces.Discrete):
        last = expected.start + expected.n
        return bool(found.start == expected.start and found.start + found.n <= last)
    if isinstance(found, spaces.Box) and isinstance(expected, spaces.Box):
        same = found.shape == expected.shape and found.dtype == expected.dtype
        return same and bool(
            (found.low >= expected.low).all() and (found.high <= expected.high).all()
        )
    return False


def unsupported_spaces(spec: EnvironmentSpec) -> list[str]:
    """Returns a sentence for each space of `spec` that no model supports; empty if all are."""
    found = []
    for check, space in (
        (check_observation_space, spec.observation_space),
        (check_action_space, spec.action_space),
    ):
        try:
            check(space)
        except ConfigError as error:
            found.append(f"these data cannot be trained on: {error}")
    return found
