"""What every reader makes of a path: a stream of episodes and what is known before it is read."""

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
    """What to do with a bad episode unless told otherwise: not go on."""
    raise error


@dataclass(frozen=True)
class Source:
    """A data set that can be read, whatever its format.

    Attributes:
        format: Name of the format.
        path: The file or folder.
        files: The files that are read.
        spec: The environment, as the file says or its contents let one infer.
        read: `read(start, on_bad)` yields the episodes from number `start` on, one in memory at a
            time. An episode that cannot be read is told to `on_bad`, which may raise, and counts.
        num_episodes: How many there are, where that is known without reading them.
        num_steps: How many steps these have, likewise.
        place: Where an episode is, for messages.
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
    """The valid episodes of a source.

    Args:
        source: The source.
        start: The first episode to read.
        on_bad: Told of each that is not valid.
        clipped: What was clipped already, to count on from there.

    Attributes:
        position: The number of the episode that comes next.
        skipped: How many were not valid.
        clipped: The actions that were outside of their bounds, and are clipped.
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
    """The task of MuJoCo that a data set's name tells, if its spaces have the task's shapes.

    Args:
        spec: What else is known of the environment.
        name: For example `hopper_medium-v2.hdf5`, `expert_data_Hopper-v4.pkl` or
            `mujoco/hopper/medium-v0`.
        version: Of Gymnasium's environment, which models of the data are rolled out in; one that
            the name tells goes first.
        references: The returns that the data set itself scores with, by `MujocoOptions`' names.
    """
    task = next((task for task in TASKS if task in name.lower()), None)
    if task is None:
        return spec
    settings: dict[str, Any] = {"task": task, "version": version}
    told = _GYM_ID.search(name)
    gym_id = None if told is None else told.group()
    if told is not None:
        settings = mujoco_settings(Recorded(told.group()))
    elif _D4RL.search(name):  # all of whose versions were recorded in one
        gym_id = f"{TASKS[task].gym_name}-v2"
    known = with_settings(spec, {**settings, **(references or {})})
    if known is spec or gym_id is None:
        return known
    recorded = {"id": gym_id, "additional_wrappers": []}
    return replace(known, recorded=json.dumps(recorded))


def known_recorded(spec: EnvironmentSpec, references: dict[str, float]) -> EnvironmentSpec:
    """The settings of the environment that a data set says it was recorded in, if we have it.

    Args:
        spec: What else is known of the environment; `recorded` is what the data set says.
        references: As in `known_mujoco`.
    """
    recorded = Recorded.parse(spec.recorded)
    if recorded is not None and recorded.task is not None:
        return with_settings(spec, {**mujoco_settings(recorded), **references})
    if recorded is not None and recorded.is_own:
        return replace(spec, options=own_settings(recorded))
    return spec


def with_settings(spec: EnvironmentSpec, settings: dict[str, Any]) -> EnvironmentSpec:
    """A task of MuJoCo from its settings, if the spaces of the data have its shapes."""
    known = replace(mujoco_spec(MujocoOptions(**settings)), options=settings)
    same = spec.observation_space.shape == known.observation_space.shape
    if not same or spec.action_space.shape != known.action_space.shape:
        return spec
    return replace(known, recorded=spec.recorded)


def observation_box(shape: tuple[int, ...], dtype: np.dtype[Any]) -> spaces.Box:
    """The space of observations of which only shape and type are known; bytes are pixels.

    Raises:
        DatasetError: If they are not numbers.
    """
    if dtype == np.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    if dtype.kind not in "fiub":
        raise DatasetError(f"the observations are {dtype}, not numbers")
    return spaces.Box(-np.inf, np.inf, shape, np.float32)
