"""The episode: what every reader and collector yields and every data set writer takes."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rate.envs.spec import EnvironmentSpec
from rate.errors import UserError

Array = npt.NDArray[Any]
# Relative to a Box's own range: float32 files of float64 data overshoot a bound by rounding.
_BOUND_TOLERANCE = 1e-5
_LARGEST = float(np.finfo(np.float32).max)


class DatasetError(UserError):
    """Data that cannot be used. The message names the file or source, the place and the fix."""


@dataclass(frozen=True)
class Episode:
    """One episode: `T` actions, the observation before each, and the reward after each.

    Attributes:
        observations: `(T, *obs)`, or a dictionary of such arrays.
        actions: `(T,)` integers, `(T, A)` integers or floats.
        rewards: `(T,)`, the reward that followed each action.
        terminated: Whether the environment ended the episode.
        truncated: Whether a time limit ended it.
        seed: The seed of the reset, where known. It is metadata and may be any integer.
        last_observation: `(*obs)`, or a dictionary of such arrays: the observation after the last
            action, where known. Models are not trained on it, as no action was taken on it.
        outcome: Numbers that the environment reported for the whole episode at its end, for
            example `success`.
    """

    observations: Array | dict[str, Array]
    actions: Array
    rewards: Array
    terminated: bool
    truncated: bool
    seed: int | None = None
    last_observation: Array | dict[str, Array] | None = None
    outcome: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of actions `T`."""
        return len(self.actions)


def integer_seed(value: Any) -> int | None:
    """The seed that a file has, in whatever form; None where it is no integer.

    Minari 0.4 writes the absence of one as the text `None`.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, (float, np.floating)):
        return int(value) if float(value).is_integer() else None
    try:
        return int(value) if isinstance(value, (str, bytes)) else operator.index(value)
    except (TypeError, ValueError):
        return None


def observation_items(observations: Array | dict[str, Array]) -> dict[str, Array]:
    """Returns the arrays of observations by key; a single array has the empty key."""
    return dict(observations) if isinstance(observations, dict) else {"": observations}


def from_items(items: dict[str, Array]) -> Array | dict[str, Array]:
    """Returns the inverse of `observation_items`."""
    return items[""] if list(items) == [""] else items


def observation_spaces(space: gymnasium.Space[Any]) -> dict[str, gymnasium.Space[Any]]:
    """Returns the spaces of the arrays of `observation_items`."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def validate_episode(episode: Episode, spec: EnvironmentSpec, source: str, index: int) -> None:
    """Check an episode against its environment.

    Args:
        episode: The episode.
        spec: The environment that it is said to come from.
        source: Where the episode was read, for the message.
        index: The episode's number there, for the message.

    Raises:
        DatasetError: If it is empty, if lengths, shapes or types disagree, if a number is not
            finite or outside its space. The message names source, episode and step.
    """
    place = f"{source}, episode {index}"
    steps = len(episode)
    if steps == 0:
        raise DatasetError(f"{place}: the episode has no steps; leave it out")
    items, expected = (
        observation_items(episode.observations),
        observation_spaces(spec.observation_space),
    )
    if set(items) != set(expected):
        raise DatasetError(
            f"{place}: the observation keys are {sorted(items)}, but {spec.name} has "
            f"{sorted(expected)}"
        )
    for key, space in expected.items():
        name = f"observations[{key!r}]" if key else "observations"
        _check_array(items[key], space, steps, f"{place}: {name}")
    if episode.last_observation is not None:
        last = observation_items(episode.last_observation)
        for key, space in expected.items():
            _check_array(last[key][None], space, 1, f"{place}: last observation {key}".rstrip())
    _check_array(episode.actions, spec.action_space, steps, f"{place}: actions")
    rewards = np.asarray(episode.rewards)
    if rewards.shape != (steps,):
        raise DatasetError(
            f"{place}: rewards have shape {rewards.shape}, but there are {steps} actions"
        )
    _check_finite(rewards, f"{place}: rewards")
    _check_returns(rewards, f"{place}: rewards")


def _check_array(array: Array, space: gymnasium.Space[Any], steps: int, place: str) -> None:
    """One array of `T` elements of `space`: length, shape, kind of number, finite, bounds."""
    if len(array) != steps:
        raise DatasetError(f"{place} have {len(array)} steps, but there are {steps} actions")
    shape = tuple(space.shape or ())
    if array.shape[1:] != shape:
        raise DatasetError(
            f"{place} have shape {array.shape[1:]} at each step, but the space has {shape}"
        )
    floating = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    kinds = "fiu" if floating else "iub"
    if array.dtype.kind not in kinds:
        wanted = "numbers" if floating else "integers"
        raise DatasetError(f"{place} are {array.dtype}, but the space holds {wanted}")
    _check_finite(array, place)
    low, high = space_bounds(space)
    outside = (array < low) | (array > high)
    if outside.any():
        first = np.unravel_index(int(np.argmax(outside)), outside.shape)
        raise DatasetError(
            f"{place}: {array[first]} at step {int(first[0])} is outside the space {space}"
        )


def _check_finite(array: Array, place: str) -> None:
    if array.dtype.kind not in "fiub":
        raise DatasetError(f"{place} are {array.dtype}, not numbers")
    if array.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        fits = np.abs(array) <= _LARGEST  # neither infinite nor NaN
    if not fits.all():
        step = int(np.argmax(~fits.reshape(len(array), -1).all(axis=1)))
        finite = np.isfinite(array[step]).all()
        what = "is too large for float32" if finite else "is not finite"
        raise DatasetError(f"{place}: the value at step {step} {what}")


def _check_returns(rewards: Array, place: str) -> None:
    """The sums of rewards that models are given are finite as well."""
    to_go = np.cumsum(rewards[::-1].astype(np.float64))[::-1]
    fits = np.abs(to_go) <= _LARGEST
    if not fits.all():
        step = int(np.argmin(fits))
        raise DatasetError(
            f"{place}: the return from step {step} on, {to_go[step]:.3g}, is infinite in float32; "
            "rewards of this size are no rewards, or have to be divided by a constant first"
        )


def space_bounds(space: gymnasium.Space[Any]) -> tuple[Array | int, Array | int]:
    """The least and greatest value of a space, with the tolerance that float Boxes get."""
    if isinstance(space, spaces.Box):
        if np.dtype(space.dtype).kind != "f":
            return space.low, space.high
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        with np.errstate(invalid="ignore"):
            slack = np.where(np.isfinite(high - low), _BOUND_TOLERANCE * (high - low), 0.0)
        return low - slack, high + slack
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    raise DatasetError(f"the space {type(space).__name__} is not supported inside a data set")
