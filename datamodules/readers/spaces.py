"""Flattens spaces into the kinds that models and the store support."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Array, DatasetError, from_items


def leaves(space: gymnasium.Space[Any], name: str = "") -> dict[str, gymnasium.Space[Any]]:
    """Returns the leaf spaces of nested spaces by their path: `goal.position`, `0`.

    A space without parts has one, whose path is empty.
    """
    if isinstance(space, spaces.Dict):
        parts = dict(space.spaces)
    elif isinstance(space, spaces.Tuple):
        parts = {str(index): part for index, part in enumerate(space.spaces)}
    else:
        return {name: space}
    found: dict[str, gymnasium.Space[Any]] = {}
    for key, part in parts.items():
        found |= leaves(part, f"{name}.{key}" if name else key)
    return found


def _plain(space: gymnasium.Space[Any]) -> gymnasium.Space[Any] | None:
    """Returns a leaf space as the store keeps it; None if it has no fixed number of numbers."""
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind == "f":
        with np.errstate(over="ignore"):
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return spaces.Box(low, high, space.shape, np.float32)
    known = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    return space if isinstance(space, known) else None


def plain_observations(
    space: gymnasium.Space[Any], place: str
) -> tuple[gymnasium.Space[Any], list[str]]:
    """Returns the space of the observations that can be kept, and the paths of the others.

    Raises:
        DatasetError: If nothing can be kept.
    """
    found = {name: _plain(part) for name, part in leaves(space).items()}
    numeric = {name: part for name, part in found.items() if part is not None}
    if not numeric:
        raise DatasetError(f"{place}: the observation space {space} has no numbers in it")
    plain = numeric[""] if list(numeric) == [""] else spaces.Dict(numeric)
    return plain, sorted(found.keys() - numeric.keys())


def plain_actions(space: gymnasium.Space[Any], place: str) -> gymnasium.Space[Any]:
    """Returns the space of the actions; a tuple of Discrete becomes a MultiDiscrete.

    Raises:
        DatasetError: If a model has no head for it.
    """
    parts = list(leaves(space).values())
    choices = [part for part in parts if isinstance(part, spaces.Discrete)]
    if isinstance(space, spaces.Tuple) and len(choices) == len(parts):
        return spaces.MultiDiscrete(
            np.array([part.n for part in choices]),
            start=np.array([part.start for part in choices]),
        )
    plain = _plain(space)
    if plain is None:
        raise DatasetError(
            f"{place}: actions of the space {space} are not supported; Box, Discrete, "
            "MultiDiscrete, MultiBinary and tuples of Discrete are"
        )
    return plain


def observation_arrays(space: gymnasium.Space[Any], values: Any) -> Array | dict[str, Array]:
    """Returns observations, nested as `space` is, in the form of `plain_observations`."""
    found = {
        name: np.asarray(_at(values, name))
        for name, part in leaves(space).items()
        if _plain(part) is not None
    }
    return from_items(found)


def action_array(values: Any) -> Array:
    """Returns actions in the form of `plain_actions`."""
    return np.stack(values, axis=-1) if isinstance(values, tuple) else np.asarray(values)


def _at(values: Any, path: str) -> Any:
    """Returns the value at a path in nested dictionaries and tuples."""
    if not path:
        return values
    if isinstance(values, tuple):
        key, _, rest = path.partition(".")
        return _at(values[int(key)], rest)
    # A key may have a dot in it.
    key = next(key for key in values if path == key or path.startswith(f"{key}."))
    return _at(values[key], path[len(key) + 1 :])
