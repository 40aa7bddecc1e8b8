"""Flat columns over all episodes, episode by episode, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.readers.actions import is_one_hot
from datamodules.readers.end_kinds import Flags
from datamodules.readers.ends import Layout, find_layout
from datamodules.readers.front import FoundEpisode, Front, following_parts, reward_column
from datamodules.readers.roles import find_roles
from datamodules.readers.values import Parts, column, load, num_rows, parts

_BLOCK_BYTES = 1 << 24
_OF_RESETS = ("is_first", "is_last", "discount", "step_type")  # columns that tell of first rows


class Flat:
    """The episodes of flat columns.

    Args:
        columns: They by name.
        front: What is known of the data set.
        place: Where they are, for messages.
        layout: Where the episodes are, if that is known already.

    Raises:
        DatasetError: If columns disagree, or nothing tells where episodes end.
    """

    def __init__(
        self, columns: Mapping[str, Any], front: Front, place: str, layout: Layout | None = None
    ) -> None:
        self._front, self._place = front, place
        self._found = found = find_roles(columns, front.options.columns, place)
        name = found.names["observations"]
        observations, left = parts(found.values["observations"], f"{place}: {name}")
        actions = column(found.values["actions"], f"{place}: {found.names['actions']}")
        self._left, self._rows = tuple(left), num_rows(actions)
        if not self._rows:
            raise DatasetError(f"{place}: there are no steps in it")
        rewards = reward_column(found, front.options, self._rows, place)
        following = following_parts(found, {self._rows}, place)

        def breaks() -> Flags:
            return chain_breaks(observations, following)

        chained = breaks if following.keys() == observations.keys() else None
        self.layout = layout or find_layout(
            found, self._rows, front.options, place, breaks=chained, one=front.one_each
        )
        if front.led is None:
            front.led = self._is_led(actions)
        seen = {num_rows(value) for value in observations.values()}
        self._more = seen == {self._rows + len(self.layout.ends)}  # T + 1 of each episode
        if seen != {self._rows} and not self._more:
            raise DatasetError(
                f"{place}: {name} has {' and '.join(map(str, sorted(seen)))} rows, but "
                f"{found.names['actions']} has {self._rows}"
            )
        self._observations = {key: _Blocks(value) for key, value in observations.items()}
        self._following = {key: _Blocks(value) for key, value in following.items()}
        self._actions = _Blocks(actions)
        self._rewards = None if rewards is None else _Blocks(rewards)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.layout.ends)

    def episode(self, number: int) -> FoundEpisode:
        """One episode, whose rows are read when they are asked for."""
        layout = self.layout
        first, last = int(layout.starts[number]), int(layout.ends[number])
        more = number if self._more else 0
        after = last + more + int(self._more)
        reset = int(bool(self._front.led))
        if last - first <= reset:
            raise DatasetError(f"{self._place}, episode {number}: there is no step in it")
        return FoundEpisode(
            found=self._found,
            observations={k: _Slice(v, first + more, after) for k, v in self._observations.items()},
            following={k: _Slice(v, first, last) for k, v in self._following.items()},
            actions=_Slice(self._actions, first, last),
            rewards=None if self._rewards is None else _Slice(self._rewards, first, last),
            steps=last - first - reset,
            last=self._more or bool(reset),
            first=reset,
            terminated=bool(layout.terminated[number]),
            truncated=bool(layout.truncated[number]),
            loose=layout.loose,
            left=self._left,
        )

    def _is_led(self, actions: Any) -> bool:
        """Whether the first row of every episode is that of a reset, without an action.

        Dreamer's data, those of dm_env's replay buffers and others are so: the action and the
        reward of a row led to its observation. The first action is 0 then; of one-hot actions
        that is none at all.
        """
        if len(actions.shape) != 2 or actions.shape[1] < 2:
            return False
        first = np.concatenate([load(actions, slice(row, row + 1)) for row in self.layout.starts])
        if first.any():
            return False
        some = load(actions, slice(1, int(self.layout.ends[0])))
        if len(some) and is_one_hot(some):
            return True
        last = np.concatenate([load(actions, slice(row - 1, row)) for row in self.layout.ends])
        hints = any(role in self._found for role in _OF_RESETS)
        return hints and bool(last.any())


def chain_breaks(now: Parts, following: Parts) -> Flags:
    """`(N - 1,)` bool: whether the next observation of a row is not the observation of the next."""
    rows = min(num_rows(value) for value in now.values())
    broken = np.zeros(rows - 1, bool)
    for key, value in now.items():
        step = rows_at_once(value)
        for first in range(0, rows - 1, step):
            last = min(first + step, rows - 1)
            after, next_row = load(following[key], slice(first, last)), value[first + 1 : last + 1]
            same = np.isclose(after, next_row, equal_nan=True)
            broken[first:last] |= ~same.reshape(last - first, -1).all(axis=1)
    return broken


def rows_at_once(data: Any) -> int:
    """How many rows of a column are read at once."""
    return max(1, int(_BLOCK_BYTES // (data.dtype.itemsize * np.prod(data.shape[1:], dtype=int))))


class _Blocks:
    """Rows of an array on the disk, which is read in blocks that hold many episodes."""

    def __init__(self, data: Any) -> None:
        self.data, self._first = data, 0
        self._block: Array = data[:0]

    def rows(self, first: int, last: int) -> Array:
        if isinstance(self.data, np.ndarray):
            return self.data[first:last]
        if not self._first <= first <= last <= self._first + len(self._block):
            wanted = max(last, first + rows_at_once(self.data))
            try:
                self._block, self._first = self.data[first:wanted], first
            except OSError:  # damage costs no other episode
                return np.asarray(self.data[first:last])
        return self._block[first - self._first : last - self._first]


class _Slice:
    """Some rows of an array, read when they are asked for.

    Attributes:
        shape: As of an array of these rows.
        dtype: Their type.
    """

    def __init__(self, blocks: _Blocks, first: int, last: int) -> None:
        self._blocks, self._first = blocks, first
        self.shape = (last - first, *blocks.data.shape[1:])
        self.dtype = blocks.data.dtype

    def __getitem__(self, rows: slice) -> Array:
        first, last, _ = rows.indices(self.shape[0])
        return self._blocks.rows(self._first + first, self._first + last)
