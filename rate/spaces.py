"""The observation and action spaces that models support; nothing here imports PyTorch.

Command lines and checks of data call these checks early; encoders and heads call them as well.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rate.errors import ConfigError

MOST_CHANNELS = 16
"""The most channels of an image: a longer axis is not the channel axis."""

MOST_VALUES = 4096
"""The most values of an action component; each has a logit of its own."""

MOST_NUMBERS = 1 << 25
"""The most numbers of an observation or action: a space has bounds of that size in memory."""


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of a space that a file declares, before anything is allocated for it.

    Raises:
        ValueError: If a size is negative or no whole number, or there are too many numbers.
    """
    sizes = tuple(operator.index(size) for size in shape)
    if min(sizes, default=0) < 0 or math.prod(sizes) > MOST_NUMBERS:
        raise ValueError(f"a space cannot have the shape {sizes}: at most {MOST_NUMBERS:,} numbers")
    return sizes


@dataclass(frozen=True)
class Choices:
    """A space whose elements have components of finitely many integers each.

    Attributes:
        sizes: How many values each component has, in the order of the flattened element.
        starts: The lowest value of each.
        shape: Of an element.
    """

    sizes: list[int]
    starts: list[int]
    shape: tuple[int, ...]


def choices_of(space: gym.Space[Any]) -> Choices | None:
    """The values of a Discrete, MultiDiscrete or MultiBinary space, or of a Box of whole numbers.

    None for any other space, and for a Box without bounds.
    """
    shape = tuple(space.shape or ())
    if isinstance(space, gym.spaces.Discrete):
        return Choices([int(space.n)], [int(space.start)], shape)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return Choices(space.nvec.ravel().tolist(), space.start.ravel().tolist(), shape)
    if isinstance(space, gym.spaces.MultiBinary):
        count = int(np.prod(shape))
        return Choices([2] * count, [0] * count, shape)
    if isinstance(space, gym.spaces.Box) and np.dtype(space.dtype).kind in "iub":
        low, high = ([int(value) for value in bound.ravel()] for bound in (space.low, space.high))
        return Choices([b - a + 1 for a, b in zip(low, high, strict=True)], low, shape)
    return None


def check_action_space(space: gym.Space[Any]) -> None:
    """Checks that there is an action head for a space.

    Raises:
        ConfigError: If there is none; names the spaces that are supported.
    """
    choices = choices_of(space)
    if choices is None and not (
        isinstance(space, gym.spaces.Box) and np.dtype(space.dtype).kind == "f"
    ):
        raise ConfigError(
            f"There is no action head for the space {space}; supported are Discrete, "
            "MultiDiscrete, MultiBinary and Box."
        )
    if choices is not None and max(choices.sizes, default=0) > MOST_VALUES:
        raise ConfigError(
            f"There is no action head for the space {space}: a component is one of "
            f"{max(choices.sizes):,} whole numbers, and each has a logit of its own, at most "
            f"{MOST_VALUES:,}. Give the actions as floats (a floating Box), or fewer of them."
        )
    _check_size(space, "action")


def check_observation_space(space: gym.Space[Any], name: str = "observation") -> None:
    """Checks that there is an encoder for a space.

    Raises:
        ConfigError: If there is none; names the spaces that are supported.
    """
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.spaces.items():
            if isinstance(part, gym.spaces.Dict):
                raise ConfigError(
                    f"The observation '{key}' is a dictionary in a dictionary; give its parts "
                    "keys of their own."
                )
            check_observation_space(part, key)
    elif isinstance(space, gym.spaces.Box):
        if is_image(space):
            _check_image(space.shape)
    elif choices_of(space) is None:
        raise ConfigError(
            f"There is no encoder for the {name} space {space}; supported are Box (vectors and "
            "images), Discrete, MultiDiscrete, MultiBinary and Dict."
        )
    _check_size(space, name)


def is_image(space: gym.spaces.Box) -> bool:
    """Whether a Box is encoded as an image: it has three axes, or two and uint8."""
    return len(space.shape) == 3 or (len(space.shape) == 2 and space.dtype == np.uint8)


def _check_image(shape: tuple[int, ...]) -> None:
    shape = shape if len(shape) == 3 else (1, *shape)
    if min(shape[0], shape[-1]) > MOST_CHANNELS:
        raise ConfigError(
            f"An image needs at most {MOST_CHANNELS} channels in its first or last axis, "
            f"not the shape {shape}; use a flat Box for what is no image."
        )


def _check_size(space: gym.Space[Any], name: str) -> None:
    empty = not space.spaces if isinstance(space, gym.spaces.Dict) else 0 in (space.shape or ())
    if empty:
        raise ConfigError(f"The {name} space {space} is empty: there is nothing in it.")


def differences(found: gym.Space[Any], expected: gym.Space[Any]) -> list[str]:
    """The differences of a space from the expected one, a phrase each."""
    if isinstance(found, gym.spaces.Dict) and isinstance(expected, gym.spaces.Dict):
        words = [f"no '{key}'" for key in expected if key not in found.spaces]
        words += [f"'{key}', which is not wanted" for key in found if key not in expected.spaces]
        for key in (key for key in expected if key in found.spaces):
            words += [f"'{key}' of {word}" for word in differences(found[key], expected[key])]
        return words
    if type(found) is not type(expected):
        return [f"{found} instead of {expected}"]
    if found == expected:
        return []
    pairs = {
        "shape": (found.shape, expected.shape),
        "dtype": (found.dtype, expected.dtype),
        "bounds": (_bounds(found), _bounds(expected)),
    }
    words = [f"{name} {a} instead of {b}" for name, (a, b) in pairs.items() if a != b]
    return (
        words[:1] if found.shape != expected.shape else words or [f"{found} instead of {expected}"]
    )


def _bounds(space: gym.Space[Any]) -> str:
    """The least and the greatest number in a space, or nothing where it has no bounds."""
    choices = choices_of(space)
    if choices is not None and choices.sizes:
        last = [low + n - 1 for low, n in zip(choices.starts, choices.sizes, strict=True)]
        return f"{min(choices.starts)} to {max(last)}"
    if isinstance(space, gym.spaces.Box):
        return f"{space.low.min():g} to {space.high.max():g}"
    return ""
