"""Infers what actions are from all of them: indices, one-hot rows or numbers, and their bounds."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Array, DatasetError
from datamodules.options import Options
from datamodules.readers.values import load, num_rows

_BLOCK_ROWS = 1 << 16
_MOST_INDICES = 1 << 10  # of actions that are floats, yet whole numbers
_CONVENTION = 1 + 1e-5  # float32 files of float64 data overshoot by rounding


class ActionForm:
    """Infers the action space of a data set from all its actions, and converts them to it.

    Args:
        options: The options of reading the data.
        space: The environment's own space, where it is known.
    """

    def __init__(self, options: Options, space: gymnasium.Space[Any] | None = None) -> None:
        self._options, self._known = options, space
        self._kind, self._shape = "", ()  # type: str, tuple[int, ...]
        self._low: Array = np.empty(0)
        self._high: Array = np.empty(0)
        self._whole = self._one_hot = True

    def see(self, actions: Any) -> None:
        """Records `(T, *shape)` actions; those that are not finite are left to validation."""
        for first in range(0, num_rows(actions), _BLOCK_ROWS):
            self._see(load(actions, slice(first, first + _BLOCK_ROWS)))

    def _see(self, actions: Array) -> None:
        if not self._kind:
            self._kind, self._shape = actions.dtype.kind, actions.shape[1:]
            self._low = np.full(self._shape, np.inf)
            self._high = np.full(self._shape, -np.inf)
        elif actions.shape[1:] != self._shape:
            return  # an episode that the checks refuse
        low: Array
        low = high = actions
        if actions.dtype.kind == "f":
            self._kind = "f"
            finite = np.isfinite(actions)
            low, high = np.where(finite, actions, np.inf), np.where(finite, actions, -np.inf)
            self._whole &= bool((actions[finite] == np.floor(actions[finite])).all())
        self._low = np.minimum(self._low, low.min(axis=0))
        self._high = np.maximum(self._high, high.max(axis=0))
        if self._one_hot:
            self._one_hot = len(self._shape) == 1 and self._shape[0] > 1 and is_one_hot(actions)

    def space(self) -> gymnasium.Space[Any]:
        """Returns the space of the actions that `apply` returns.

        Raises:
            DatasetError: If there are none, or an index is negative.
        """
        if self._known is not None:
            return self._known
        if not self._kind or not np.isfinite(self._high).all():
            raise DatasetError("there are no actions, or they are not numbers")
        if self._options.action_range is not None:
            low, high = self._options.action_range
            return spaces.Box(low, high, self._vector, np.float32)
        if self._one_hot:
            return spaces.Discrete(self._shape[0])
        if self._indices:
            return self._counted()
        bounds = _bounds(self._low.reshape(self._vector), self._high.reshape(self._vector))
        return spaces.Box(*bounds, self._vector, np.float32)

    def notes(self) -> list[str]:
        """Returns what was inferred, for people."""
        space = self.space()
        if self._known is not None:
            return []
        if self._one_hot and isinstance(space, spaces.Discrete):
            return [f"the actions are one-hot and are read as indices of {space.n} choices"]
        if self._kind == "f" and isinstance(space, spaces.Discrete):
            return [
                f"the actions are whole numbers and are read as indices of {space.n} choices; "
                "--action-range LOW HIGH says that they are continuous"
            ]
        if isinstance(space, spaces.Box) and self._options.action_range is None:
            if (space.low == -1).all() and (space.high == 1).all():
                return []
            return [
                "the bounds of the actions are those of the data, from "
                f"{space.low.min():.4g} to {space.high.max():.4g}; --action-range LOW HIGH, or "
                "--environment, says others"
            ]
        return []

    def apply(self, actions: Array) -> Array:
        """Returns `(T, *shape)` actions in the form of the space; others are unchanged."""
        space, steps = self.space(), len(actions)
        shape = tuple(space.shape or ())
        if isinstance(space, spaces.Box):
            fits = steps and actions.size == steps * int(np.prod(shape))
            return actions.reshape(steps, *shape) if fits else actions
        if isinstance(space, spaces.Discrete) and actions.shape[1:] == (space.n,) != (1,):
            return actions.argmax(axis=1).astype(np.int64) if is_one_hot(actions) else actions
        if steps and actions.size == steps * int(np.prod(shape)):
            actions = actions.reshape(steps, *shape)
        finite = actions.dtype.kind == "f" and np.isfinite(actions).all()
        if finite and (actions == np.floor(actions)).all():
            return actions.astype(np.int64)
        return actions.astype(np.int64) if actions.dtype.kind == "b" else actions

    @property
    def _vector(self) -> tuple[int, ...]:
        """The shape of a continuous action; a single number becomes a vector of one."""
        return self._shape or (1,)

    @property
    def _indices(self) -> bool:
        if self._kind in "iub":
            return True
        single = self._shape in ((), (1,)) and self._whole
        return bool(single and 0 <= self._low.min() < self._high.max() < _MOST_INDICES)

    def _counted(self) -> gymnasium.Space[Any]:
        if self._low.min() < 0:
            raise DatasetError(
                f"an action is {self._low.min():g}, but an index is not negative; "
                "--action-range LOW HIGH says that actions are continuous"
            )
        counts = self._high.astype(np.int64) + 1
        if self._shape in ((), (1,)):
            return spaces.Discrete(int(counts.max()))
        return spaces.MultiDiscrete(np.full(self._shape, counts.max()))


def is_one_hot(actions: Array) -> bool:
    """Whether every row is 0 but for a single 1."""
    ones = actions == 1
    return bool((ones | (actions == 0)).all() and (ones.sum(axis=-1) == 1).all())


def _bounds(low: Array, high: Array) -> tuple[Array, Array]:
    """Returns -1 and 1 for each component, or the bounds of the data if they exceed these."""
    inside = (low >= -_CONVENTION) & (high <= _CONVENTION)
    same = (low == high) & ~inside  # a component without a range gets one
    bottom = np.where(inside, -1.0, np.where(same, low - 1, low))
    top = np.where(inside, 1.0, np.where(same, high + 1, high))
    return bottom.astype(np.float32), top.astype(np.float32)
