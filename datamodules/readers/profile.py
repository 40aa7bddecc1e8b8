"""The profile of a data set in named columns: its environment, and how its episodes are converted.

Rewards become `(T,)`, actions indices or vectors. Observations take the form of the environment's
space where it is known (`datamodules.readers.observations`). One observation more than actions is
the last observation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Array, DatasetError, Episode, from_items, observation_spaces
from datamodules.options import Options
from datamodules.readers.actions import ActionForm
from datamodules.readers.end_kinds import NO_END_FLAGS, end_notes
from datamodules.readers.episode_columns import EpisodeColumns
from datamodules.readers.observations import is_scaled_image, to_space
from datamodules.readers.values import Parts, flat_numbers, load
from datamodules.source import UNKNOWN_RETURN, known_mujoco, observation_box
from rate.envs.mujoco import PUBLISHED_LENGTH
from rate.envs.spec import EnvironmentSpec
from rate.messages import first_of

_MOST_LISTED = 8


@dataclass
class DatasetProfile:
    """What is known of a data set as a whole: its environment, the forms of its columns, its ends.

    `see` is called with every episode, then `learn` once; after that `episode` reads episodes.

    Attributes:
        format_name: Name of its format.
        path: The file or folder.
        options: The options of reading the data.
        given: The environment, where the data say it.
        starts_with_reset: See `open_episodes`; None if the data are to show it.
        one_per_file: Whether a file is one episode, unless its columns mark several.
        name: The name of the data set, where its path does not tell it.
        lengths: The number of steps of each episode that was seen.
        notes: Assumptions that were made, for people.
        spec: The environment; set by `learn`.
    """

    format_name: str
    path: Path
    options: Options
    given: EnvironmentSpec | None = None
    starts_with_reset: bool | None = False
    one_per_file: bool = False
    name: str = ""
    lengths: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spec: EnvironmentSpec = field(init=False)
    _marked: list[bool] = field(default_factory=list)
    _limit: int | None = None
    _scaled_images: list[str] = field(default_factory=list)
    _shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)
    _first: EpisodeColumns | None = None

    def __post_init__(self) -> None:
        known = self.options.spec or self.given
        self._form = ActionForm(self.options, None if known is None else known.action_space)
        self._spaces = {} if known is None else observation_spaces(known.observation_space)

    def see(self, episode: EpisodeColumns) -> None:
        """Records the forms, the length and the end of an episode."""
        if self._first is None:
            self._first, observations = episode, episode.observations
            self._scaled_images = [k for k, v in observations.items() if is_scaled_image(v)]
            self._shapes = {
                k: (tuple(v.shape[1:]), np.dtype(v.dtype)) for k, v in observations.items()
            }
        rows = slice(episode.first, None)
        self._form.see(load(episode.actions, rows) if episode.first else episode.actions)
        self.lengths.append(episode.steps)
        self._marked.append(episode.terminated and not episode.truncated)

    def learn(self) -> None:
        """Infers the environment from the episodes that were seen.

        Raises:
            DatasetError: If none was seen, or there is no space for the actions.
        """
        first = self._first
        if first is None:
            raise DatasetError(f"{self.path}: there are no episodes in it")
        if self._scaled_images:
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
        if not first.has_end_flags:
            self.notes.append(NO_END_FLAGS)
        if first.ambiguous:
            self.notes += end_notes(marked, lengths, self._limit, first.found)
        others = [*first.found.others, *first.left_out]
        if others:
            self.notes.append(f"not read: {first_of(others, _MOST_LISTED)}")

    def _infer(self) -> EnvironmentSpec:
        boxes: dict[str, gymnasium.Space[Any]] = {
            key: observation_box(
                shape or (1,), np.dtype(np.uint8) if key in self._scaled_images else dtype
            )
            for key, (shape, dtype) in self._shapes.items()
        }
        space = boxes[""] if list(boxes) == [""] else spaces.Dict(boxes)
        spec = EnvironmentSpec(self.format_name, space, self._form.space(), UNKNOWN_RETURN)
        known = known_mujoco(spec, self.name or self.path.name, "v4")
        if known is not spec and self.options.spec is None:
            self._form = ActionForm(self.options, known.action_space)
        return known

    def episode(self, found: EpisodeColumns) -> Episode:
        """Reads an episode and converts it to the spaces of the environment."""
        steps, taken = found.steps, slice(found.first, found.first + found.steps)
        rewards = np.zeros(steps, np.float32)
        if found.rewards is not None:
            rewards = flat_numbers(load(found.rewards, taken), steps)
        terminated = found.terminated
        if steps == self._limit and found.ambiguous:
            terminated = False
        return Episode(
            observations=from_items(self._rows(found.observations, slice(0, steps))),
            actions=self._form.apply(load(found.actions, taken)),
            rewards=rewards,
            terminated=terminated,
            truncated=found.truncated or not terminated,
            last_observation=self._last(found),
        )

    def _last(self, found: EpisodeColumns) -> Array | dict[str, Array] | None:
        """Returns the observation after the last action, where it is known."""
        steps = found.steps
        if found.has_last:
            after = self._rows(found.observations, slice(steps, steps + 1))
        elif found.following.keys() == found.observations.keys():
            after = self._rows(found.following, slice(steps - 1, steps))
        else:
            return None
        return from_items({key: array[0] for key, array in after.items()})

    def _rows(self, columns: Parts, rows: slice) -> dict[str, Array]:
        """Returns rows of observations in the form of the environment's space."""
        return {
            key: to_space(load(value, rows), self._spaces.get(key), key in self._scaled_images)
            for key, value in columns.items()
        }


def time_limit(spec: EnvironmentSpec) -> int | None:
    """Returns the time limit of a known environment, in steps."""
    return PUBLISHED_LENGTH if spec.name.startswith("mujoco-") else None
