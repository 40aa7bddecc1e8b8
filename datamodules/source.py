"""A source: what every reader returns, a stream of episodes and what is known beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from datamodules.action_clipping import ActionClipping
from datamodules.episodes import DatasetError, Episode, validate_episode
from rate.envs.mujoco import TASKS, MujocoOptions, mujoco_spec
from rate.envs.recorded import Recorded, mujoco_settings, own_settings
from rate.envs.spec import EnvironmentSpec
from rate.spaces import check_shape

# The target return of a specification that was inferred: the best episode of the data.
UNKNOWN_RETURN = float("nan")
# Names of D4RL's own files, `hopper_medium-v2.hdf5`, and of those that others made of them.
_D4RL = re.compile(
    r"[-_](random|medium|expert|full[-_]replay|simple)[\w-]*-v[012]\b", re.IGNORECASE
)
# Gymnasium's id of a task in a name; `hopper-medium-v2` has the version of a data set.
_GYM_ID = re.compile(rf"({'|'.join(task.gym_name for task in TASKS.values())})-v\d+")
OnBad = Callable[[DatasetError], None]


def raise_error(error: DatasetError) -> None:
    """Raises the error of a bad episode: the default of `on_bad`."""
    raise error


@dataclass(frozen=True)
class Source:
    """A data set of any format, ready to be read.

    Attributes:
        format: Name of the format.
        path: The file or folder.
        files: The files that are read.
        spec: The environment, as the file says or as it is inferred.
        read: `read(start, on_bad)` yields the episodes from number `start` on, one in memory at a
            time. For an episode that cannot be read, `on_bad` is called with the error; it may
            raise. The episode counts.
        num_episodes: The number of episodes, where it is known without reading them.
        num_steps: The number of their steps, likewise.
        place: Names an episode, for messages.
        notes: What is left out or assumed, for people.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    spec: EnvironmentSpec
    read: Callable[[int, OnBad], Iterator[Episode]]
    num_episodes: int | None = None
    num_steps: int | None = None
    place: Callable[[int], str] | None = None
    notes: tuple[str, ...] = ()


class ValidEpisodes:
    """Iterates over the valid episodes of a source, with their actions clipped.

    Args:
        source: The source.
        start: The first episode to read.
        on_bad: Called with the error of each episode that is not valid.
        clipped: The clipping of earlier episodes, to continue its counts.

    Attributes:
        position: The number of the next episode.
        skipped: The number of episodes that were not valid.
        clipped: Counts the actions that were outside their bounds and are clipped.
    """

    def __init__(
        self,
        source: Source,
        start: int = 0,
        on_bad: OnBad = raise_error,
        clipped: ActionClipping | None = None,
    ) -> None:
        self.source, self.position, self.skipped = source, start, 0
        self.clipped = clipped or ActionClipping()
        self._on_bad = on_bad

    def __iter__(self) -> Iterator[Episode]:
        source = self.source
        for episode in source.read(self.position, self._bad):
            place = str(source.path) if source.place is None else source.place(self.position)
            episode = self.clipped.fit(episode, source.spec.action_space)
            try:
                validate_episode(episode, source.spec, place, self.position)
            except DatasetError as error:
                self._bad(error)
            else:
                self.position += 1
                yield episode

    def _bad(self, error: DatasetError) -> None:
        self._on_bad(error)
        self.position += 1
        self.skipped += 1


def known_mujoco(
    spec: EnvironmentSpec, name: str, version: str, references: dict[str, float] | None = None
) -> EnvironmentSpec:
    """Returns the MuJoCo task that a data set's name shows, if its spaces have the task's shapes.

    Args:
        spec: What else is known of the environment.
        name: For example `hopper_medium-v2.hdf5`, `expert_data_Hopper-v4.pkl` or
            `mujoco/hopper/medium-v0`.
        version: The version of Gymnasium's environment for rollouts, unless the name gives one.
        references: The returns of the scores 0 and 100 in the data set, by `MujocoOptions`' names.
    """
    task = next((task for task in TASKS if task in name.lower()), None)
    if task is None:
        return spec
    settings: dict[str, Any] = {"task": task, "version": version}
    match = _GYM_ID.search(name)
    gym_id = None if match is None else match.group()
    if match is not None:
        settings = mujoco_settings(Recorded(match.group()))
    elif _D4RL.search(name):  # all versions of D4RL were recorded in v2
        gym_id = f"{TASKS[task].gym_name}-v2"
    known = with_settings(spec, {**settings, **(references or {})})
    if known is spec or gym_id is None:
        return known
    recorded = {"id": gym_id, "additional_wrappers": []}
    return replace(known, recorded=json.dumps(recorded))


def known_recorded(spec: EnvironmentSpec, references: dict[str, float]) -> EnvironmentSpec:
    """Returns the settings of the environment that a data set was recorded in, if we have it.

    Args:
        spec: What else is known of the environment; `recorded` holds what the data set says.
        references: As in `known_mujoco`.
    """
    recorded = Recorded.parse(spec.recorded)
    if recorded is not None and recorded.task is not None:
        return with_settings(spec, {**mujoco_settings(recorded), **references})
    if recorded is not None and recorded.is_own:
        return replace(spec, options=own_settings(recorded))
    return spec


def with_settings(spec: EnvironmentSpec, settings: dict[str, Any]) -> EnvironmentSpec:
    """Returns a MuJoCo task by its settings, if the spaces of the data have its shapes."""
    known = replace(mujoco_spec(MujocoOptions(**settings)), options=settings)
    same = spec.observation_space.shape == known.observation_space.shape
    if not same or spec.action_space.shape != known.action_space.shape:
        return spec
    return replace(known, recorded=spec.recorded)


def observation_box(shape: tuple[int, ...], dtype: np.dtype[Any]) -> spaces.Box:
    """Returns the space of observations by their shape and type; bytes are pixels.

    Raises:
        DatasetError: If they are not numbers, or too many.
    """
    try:
        check_shape(shape)
    except ValueError as error:
        raise DatasetError(f"the observations: {error}") from error
    if dtype == np.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    if dtype.kind not in "fiub":
        raise DatasetError(f"the observations are {dtype}, not numbers")
    return spaces.Box(-np.inf, np.inf, shape, np.float32)
