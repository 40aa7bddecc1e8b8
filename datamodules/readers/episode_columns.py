"""The columns of one episode: found by their names, checked against each other, not yet read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.end_kinds import is_ambiguous, last_flags
from datamodules.readers.roles import ColumnRoles, find_roles
from datamodules.readers.values import Parts, column, num_rows, parts, stack_rows


@dataclass(frozen=True)
class EpisodeColumns:
    """The columns of an episode; large ones are read when their rows are used.

    Attributes:
        found: The columns by role.
        observations: `steps` rows, and one more for the last observation if `has_last`.
        following: The next observation of each step; empty where the data have none.
        actions: A row for each step, after `first` rows of the reset.
        rewards: Likewise; None where there are none.
        steps: The number of actions.
        has_last: Whether observations have one row more than actions.
        first: Rows of actions and rewards before the first step: 1 if the first row is that of the
            reset, else 0.
        terminated: Whether the data mark the end as the environment's.
        truncated: Whether the data mark the end as a time limit's.
        ambiguous: Whether the mark of the end may also be a time limit's; see `is_ambiguous`.
        left_out: The names of the parts of observations that are not numbers.
        has_end_flags: Whether a column says what ended the episode.
    """

    found: ColumnRoles
    observations: Parts
    following: Parts
    actions: Any
    rewards: Any
    steps: int
    has_last: bool
    first: int
    terminated: bool
    truncated: bool
    ambiguous: bool
    left_out: tuple[str, ...]
    has_end_flags: bool = True


def find_episode_columns(
    item: Any, options: Options, place: str, starts_with_reset: bool = False
) -> EpisodeColumns:
    """Returns the columns of an episode.

    Args:
        item: The columns by name, or a list with a dictionary for each step. A `DatasetError` in
            the place of an episode is raised.
        options: The options of reading the data.
        place: The episode, for messages.
        starts_with_reset: Whether the first row is that of the reset; see `open_episodes`.

    Raises:
        DatasetError: If a column is missing, or columns disagree in their lengths.
    """
    if isinstance(item, DatasetError):
        raise item
    if isinstance(item, (list, tuple)) and item and isinstance(item[0], Mapping):
        item = stack_rows(item, place)
    if not isinstance(item, Mapping):
        raise DatasetError(
            f"{place}: not a dictionary of arrays, but of type {type(item).__name__}"
        )
    found = find_roles(item, options.columns, place)
    name = found.names["observations"]
    observations, left_out = parts(found.values["observations"], f"{place}: {name}")
    actions = column(found.values["actions"], f"{place}: {found.names['actions']}")
    first = int(starts_with_reset)
    steps = num_rows(actions) - first
    if steps < 1:
        raise DatasetError(f"{place}: the episode has no steps")
    lengths = {num_rows(value) for value in observations.values()}
    if lengths not in ({steps}, {steps + 1}) or (starts_with_reset and lengths == {steps}):
        raise DatasetError(
            f"{place}: {name} has {' and '.join(map(str, sorted(lengths)))} steps, but "
            f"{found.names['actions']} has {steps + first}"
        )
    flags = last_flags(found, steps, place)
    truncated = flags.get("truncated", False)
    terminated = flags.get("terminated", False) or flags.get("terminals", False)
    return EpisodeColumns(
        found=found,
        observations=observations,
        following=following_parts(found, {steps}, place),
        actions=actions,
        rewards=reward_column(found, options, steps + first, place),
        steps=steps,
        has_last=lengths == {steps + 1},
        first=first,
        terminated=terminated or (flags.get("dones", False) and not truncated),
        truncated=truncated,
        ambiguous=is_ambiguous(found),
        left_out=tuple(left_out),
        has_end_flags=bool(flags),
    )


def reward_column(found: ColumnRoles, options: Options, rows: int, place: str) -> Any:
    """Returns the rewards, `rows` of them; None where a person says that there are none.

    Raises:
        DatasetError: If they are not there or of another length.
    """
    if "rewards" not in found:
        if options.zero_rewards:
            return None
        names = ", ".join([*found.names.values(), *found.others])
        raise DatasetError(
            f"{place}: there are no rewards; it has {names}. Say which column they are, "
            "--map THEIRS=rewards, or take them as 0 with --zero-rewards"
        )
    name = found.names["rewards"]
    rewards = column(found.values["rewards"], f"{place}: {name}")
    there = num_rows(rewards)
    if there != rows:
        raise DatasetError(
            f"{place}: {name} has {there} steps, but {found.names['actions']} has {rows}"
        )
    return rewards


def following_parts(found: ColumnRoles, rows: set[int], place: str) -> Parts:
    """Returns the next observation of each step; empty where the data have none.

    Raises:
        DatasetError: If they are of other lengths than `rows`.
    """
    if "next_observations" not in found:
        return {}
    name = found.names["next_observations"]
    made, _ = parts(found.values["next_observations"], f"{place}: {name}")
    for value in made.values():
        if num_rows(value) not in rows:
            raise DatasetError(
                f"{place}: {name} has {num_rows(value)} steps, but {found.names['actions']} has "
                f"{min(rows)}"
            )
    return made
