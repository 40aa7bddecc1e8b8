"""Flat columns over the steps of all episodes, cut into episodes in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.episodes import DatasetError
from datamodules.readers.actions import is_one_hot
from datamodules.readers.end_kinds import Flags
from datamodules.readers.ends import EpisodeBounds, find_bounds
from datamodules.readers.episode_columns import EpisodeColumns, following_parts, reward_column
from datamodules.readers.lazy_array import BlockReader, rows_per_block
from datamodules.readers.profile import DatasetProfile
from datamodules.readers.roles import find_roles
from datamodules.readers.values import Parts, column, load, num_rows, parts

_OF_RESETS = ("is_first", "is_last", "discount", "step_type")  # of data with a row for the reset


class FlatColumns:
    """The episodes of flat columns.

    Args:
        columns: The columns by name.
        profile: What is known of the data set.
        place: The file, for messages.
        bounds: Where the episodes start and end, if that is known already.

    Raises:
        DatasetError: If columns disagree, or nothing marks the ends of episodes.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        profile: DatasetProfile,
        place: str,
        bounds: EpisodeBounds | None = None,
    ) -> None:
        self._profile, self._place = profile, place
        self._found = found = find_roles(columns, profile.options.columns, place)
        name = found.names["observations"]
        observations, left_out = parts(found.values["observations"], f"{place}: {name}")
        actions = column(found.values["actions"], f"{place}: {found.names['actions']}")
        self._left_out, self._rows = tuple(left_out), num_rows(actions)
        if not self._rows:
            raise DatasetError(f"{place}: there are no steps in it")
        rewards = reward_column(found, profile.options, self._rows, place)
        following = following_parts(found, {self._rows}, place)

        def breaks() -> Flags:
            return broken_links(observations, following)

        linked = breaks if following.keys() == observations.keys() else None
        self.bounds = bounds or find_bounds(
            found, self._rows, profile.options, place, breaks=linked, one=profile.one_per_file
        )
        if profile.starts_with_reset is None:
            profile.starts_with_reset = self._starts_with_reset(actions)
        lengths = {num_rows(value) for value in observations.values()}
        self._has_last = lengths == {self._rows + len(self.bounds.ends)}  # T + 1 per episode
        if lengths != {self._rows} and not self._has_last:
            raise DatasetError(
                f"{place}: {name} has {' and '.join(map(str, sorted(lengths)))} rows, but "
                f"{found.names['actions']} has {self._rows}"
            )
        self._observations = {key: BlockReader(value) for key, value in observations.items()}
        self._following = {key: BlockReader(value) for key, value in following.items()}
        self._actions = BlockReader(actions)
        self._rewards = None if rewards is None else BlockReader(rewards)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.bounds.ends)

    def episode(self, number: int) -> EpisodeColumns:
        """Returns one episode, whose rows are read when they are used."""
        bounds = self.bounds
        first, last = int(bounds.starts[number]), int(bounds.ends[number])
        shift = number if self._has_last else 0  # the last observations of earlier episodes
        after = last + shift + int(self._has_last)
        reset = int(bool(self._profile.starts_with_reset))
        if last - first <= reset:
            raise DatasetError(f"{self._place}, episode {number}: there is no step in it")
        return EpisodeColumns(
            found=self._found,
            observations={k: v.slice(first + shift, after) for k, v in self._observations.items()},
            following={k: v.slice(first, last) for k, v in self._following.items()},
            actions=self._actions.slice(first, last),
            rewards=None if self._rewards is None else self._rewards.slice(first, last),
            steps=last - first - reset,
            has_last=self._has_last or bool(reset),
            first=reset,
            terminated=bool(bounds.terminated[number]),
            truncated=bool(bounds.truncated[number]),
            ambiguous=bounds.ambiguous,
            left_out=self._left_out,
        )

    def _starts_with_reset(self, actions: Any) -> bool:
        """Whether the first row of every episode is that of the reset, without an action.

        So are the data of Dreamer, of dm_env's replay buffers and others: the action and the reward
        of a row led to its observation. The first action is 0 then, which no one-hot action is.
        """
        if len(actions.shape) != 2 or actions.shape[1] < 2:
            return False
        first = np.concatenate([load(actions, slice(row, row + 1)) for row in self.bounds.starts])
        if first.any():
            return False
        some = load(actions, slice(1, int(self.bounds.ends[0])))
        if len(some) and is_one_hot(some):
            return True
        last = np.concatenate([load(actions, slice(row - 1, row)) for row in self.bounds.ends])
        has_reset_columns = any(role in self._found for role in _OF_RESETS)
        return has_reset_columns and bool(last.any())


def broken_links(now: Parts, following: Parts) -> Flags:
    """Returns `(N - 1,)` bool: where the next observation of a row is not that of the next row."""
    rows = min(num_rows(value) for value in now.values())
    broken = np.zeros(rows - 1, bool)
    for key, value in now.items():
        step = rows_per_block(value)
        for first in range(0, rows - 1, step):
            last = min(first + step, rows - 1)
            after, next_row = load(following[key], slice(first, last)), value[first + 1 : last + 1]
            same = np.isclose(after, next_row, equal_nan=True)
            broken[first:last] |= ~same.reshape(last - first, -1).all(axis=1)
    return broken
