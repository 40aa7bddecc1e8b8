"""Episodes in named columns, in the one form that the rest of the program knows.

Rewards become `(T,)`, actions indices or vectors, observations what the environment shows, where it
is known (`datamodules.readers.observations`). One observation more than actions is what followed
the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Array, DatasetError, Episode, observation_spaces
from datamodules.options import Options
from datamodules.readers.actions import ActionForm
from datamodules.readers.end_kinds import NOTHING_TOLD, is_loose, judge, last_flags
from datamodules.readers.observations import in_form, is_picture
from datamodules.readers.roles import Found, find_roles
from datamodules.readers.values import (
    Parts,
    column,
    flat_numbers,
    load,
    num_rows,
    parts,
    stack_rows,
)
from datamodules.source import UNKNOWN_RETURN, known_mujoco, observation_box
from rate.envs.mujoco import PUBLISHED_LENGTH
from rate.envs.spec import EnvironmentSpec

_MOST_LISTED = 8


@dataclass(frozen=True)
class FoundEpisode:
    """An episode whose columns are found and fit each other; what is large is not read yet.

    Attributes:
        found: The columns by what they are.
        observations: `steps` rows, and one more of what followed the last action if `last`.
        following: The next observation of each step, empty where the data have none.
        actions: A row a step, after `first` rows of the reset.
        rewards: Likewise; None where there are none.
        steps: How many actions there are.
        last: Whether observations have that one row more.
        first: Rows of actions and rewards before the first step.
        terminated: Whether the data mark the end as the environment's.
        truncated: Whether they mark it as a time limit's.
        loose: See `Layout`.
        left: Parts of the observations that are no numbers.
        told: Whether a column tells what ended the episode, or a note of the layout that none does.
    """

    found: Found
    observations: Parts
    following: Parts
    actions: Any
    rewards: Any
    steps: int
    last: bool
    first: int
    terminated: bool
    truncated: bool
    loose: bool
    left: tuple[str, ...]
    told: bool = True


@dataclass
class Front:
    """What is known of a data set as a whole.

    Attributes:
        format_name: Name of its format.
        path: The file or folder.
        options: What a person says of it.
        given: The environment, where the data say it.
        led: See `open_episodes`; None if it is to be found out.
        one_each: Whether a file is an episode, unless its columns tell of several.
        name: What the data set is called, where its path does not tell.
        lengths: Steps of each episode that was seen.
        notes: What was assumed, for people.
        spec: The environment, once `learn` was called.
    """

    format_name: str
    path: Path
    options: Options
    given: EnvironmentSpec | None = None
    led: bool | None = False
    one_each: bool = False
    name: str = ""
    lengths: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spec: EnvironmentSpec = field(init=False)
    _marked: list[bool] = field(default_factory=list)
    _limit: int | None = None
    _pictures: list[str] = field(default_factory=list)
    _shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)
    _first: FoundEpisode | None = None

    def __post_init__(self) -> None:
        known = self.options.spec or self.given
        self._form = ActionForm(self.options, None if known is None else known.action_space)
        self._spaces = {} if known is None else observation_spaces(known.observation_space)

    def see(self, episode: FoundEpisode) -> None:
        """Take note of an episode."""
        if self._first is None:
            self._first, seen = episode, episode.observations
            self._pictures = [key for key in seen if is_picture(seen[key])]
            self._shapes = {k: (tuple(v.shape[1:]), np.dtype(v.dtype)) for k, v in seen.items()}
        rows = slice(episode.first, None)
        self._form.see(load(episode.actions, rows) if episode.first else episode.actions)
        self.lengths.append(episode.steps)
        self._marked.append(episode.terminated and not episode.truncated)

    def learn(self) -> None:
        """Infer the environment from what was seen.

        Raises:
            DatasetError: If nothing was, or there is no space for the actions.
        """
        first = self._first
        if first is None:
            raise DatasetError(f"{self.path}: there are no episodes in it")
        if self._pictures:
            self.notes.append("pictures of floats from 0 to 1 become the bytes they were made of")
        self.spec = self.given or self._infer()
        if first.first:
            self.notes.append(
                "the first row of an episode is that of the reset: the action and the reward of a "
                "row are those that led to its observation"
            )
        if first.rewards is None:
            self.notes.append("there are no rewards; all are taken as 0")
        self.notes += self._form.notes()
        self._limit = self.options.time_limit or time_limit(self.options.spec or self.spec)
        marked, lengths = np.array(self._marked), np.array(self.lengths)
        if not first.told:
            self.notes.append(NOTHING_TOLD)
        if first.loose:
            self.notes += judge(marked, lengths, self._limit, first.found)
        others = [*first.found.others, *first.left]
        if others:
            more = f" and {len(others) - _MOST_LISTED} more" if len(others) > _MOST_LISTED else ""
            self.notes.append(f"not read: {', '.join(others[:_MOST_LISTED])}{more}")

    def _infer(self) -> EnvironmentSpec:
        boxes: dict[str, gymnasium.Space[Any]] = {
            key: observation_box(
                shape or (1,), np.dtype(np.uint8) if key in self._pictures else dtype
            )
            for key, (shape, dtype) in self._shapes.items()
        }
        seen = boxes[""] if list(boxes) == [""] else spaces.Dict(boxes)
        spec = EnvironmentSpec(self.format_name, seen, self._form.space(), UNKNOWN_RETURN)
        known = known_mujoco(spec, self.name or self.path.name, "v4")
        if known is not spec and self.options.spec is None:
            self._form = ActionForm(self.options, known.action_space)
        return known

    def episode(self, found: FoundEpisode) -> Episode:
        """An episode, read and in the form of the data set."""
        steps, taken = found.steps, slice(found.first, found.first + found.steps)
        rewards = np.zeros(steps, np.float32)
        if found.rewards is not None:
            rewards = flat_numbers(load(found.rewards, taken), steps)
        terminated = found.terminated
        if steps == self._limit and found.loose:
            terminated = False
        return Episode(
            observations=_alone(self._rows(found.observations, slice(0, steps))),
            actions=self._form.apply(load(found.actions, taken)),
            rewards=rewards,
            terminated=terminated,
            truncated=found.truncated or not terminated,
            last_observation=self._last(found),
        )

    def _last(self, found: FoundEpisode) -> Array | dict[str, Array] | None:
        """What followed the last action, where it is known."""
        steps = found.steps
        if found.last:
            after = self._rows(found.observations, slice(steps, steps + 1))
        elif found.following.keys() == found.observations.keys():
            after = self._rows(found.following, slice(steps - 1, steps))
        else:
            return None
        return _alone({key: array[0] for key, array in after.items()})

    def _rows(self, columns: Parts, rows: slice) -> dict[str, Array]:
        """Rows of observations, in the form of the environment's."""
        return {
            key: in_form(load(value, rows), self._spaces.get(key), key in self._pictures)
            for key, value in columns.items()
        }


def find_episode(item: Any, front: Front, place: str) -> FoundEpisode:
    """The columns of an episode.

    Args:
        item: They by name, or a list with a dictionary for each step. An error is raised.
        front: What is known of the data set.
        place: Where the episode is, for messages.

    Raises:
        DatasetError: If something is missing, or columns disagree.
    """
    if isinstance(item, DatasetError):
        raise item
    if isinstance(item, (list, tuple)) and item and isinstance(item[0], Mapping):
        item = stack_rows(item, place)
    if not isinstance(item, Mapping):
        raise DatasetError(
            f"{place}: not a dictionary of arrays, but of type {type(item).__name__}"
        )
    found = find_roles(item, front.options.columns, place)
    observations, left = parts(found.values["observations"], f"{place}: {_name(found)}")
    actions = column(found.values["actions"], f"{place}: {found.names['actions']}")
    first = int(bool(front.led))
    steps = num_rows(actions) - first
    if steps < 1:
        raise DatasetError(f"{place}: the episode has no steps")
    seen = {num_rows(value) for value in observations.values()}
    if seen not in ({steps}, {steps + 1}) or (front.led and seen == {steps}):
        raise DatasetError(
            f"{place}: {_name(found)} has {' and '.join(map(str, sorted(seen)))} steps, but "
            f"{found.names['actions']} has {steps + first}"
        )
    flags = last_flags(found, steps, place)
    truncated = flags.get("truncated", False)
    terminated = flags.get("terminated", False) or flags.get("terminals", False)
    return FoundEpisode(
        found=found,
        observations=observations,
        following=following_parts(found, {steps}, place),
        actions=actions,
        rewards=reward_column(found, front.options, steps + first, place),
        steps=steps,
        last=seen == {steps + 1},
        first=first,
        terminated=terminated or (flags.get("dones", False) and not truncated),
        truncated=truncated,
        loose=is_loose(found),
        left=tuple(left),
        told=bool(flags),
    )


def reward_column(found: Found, options: Options, rows: int, place: str) -> Any:
    """The rewards, `rows` of them, or None where a person says that there are none.

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


def following_parts(found: Found, rows: set[int], place: str) -> Parts:
    """The next observation of each step, empty where the data have none.

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


def time_limit(spec: EnvironmentSpec) -> int | None:
    """After how many steps an environment that is known ends an episode."""
    return PUBLISHED_LENGTH if spec.name.startswith("mujoco-") else None


def _name(found: Found) -> str:
    return found.names["observations"]


def _alone(arrays: dict[str, Array]) -> Array | dict[str, Array]:
    """The array that stands alone, or all by their key."""
    return arrays[""] if list(arrays) == [""] else arrays
