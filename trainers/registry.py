"""The environments that can be trained on. A new one is one entry here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from trainers.config import DataConfig
from trainers.rollout import MakeVector


@dataclass(frozen=True)
class EnvironmentEntry:
    """What training needs of an environment.

    Attributes:
        spec: As models see it.
        make_vector: Makes a vector environment without autoreset from a number of rows and an
            episode length.
        prepare_data: Makes the environment's own data set, unless it exists, from the settings
            and the longest episode; returns the path of the store.
    """

    spec: EnvironmentSpec
    make_vector: MakeVector
    prepare_data: Callable[[DataConfig, int], Path]


def get_environment(name: str) -> EnvironmentEntry:
    """The entry of an environment; only its own packages are imported.

    Raises:
        ConfigError: If there is none of this name; names the nearest.
    """
    if name not in ENVIRONMENTS:
        close = difflib.get_close_matches(name, ENVIRONMENTS, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(
            f"There is no environment '{name}'; {hint}There are: {', '.join(ENVIRONMENTS)}."
        )
    return ENVIRONMENTS[name]()


def _tmaze() -> EnvironmentEntry:
    from datamodules.tmaze import generate_tmaze
    from rate.envs.tmaze import TMAZE_SPEC, TMazeVector

    def prepare(data: DataConfig, max_length: int) -> Path:
        return generate_tmaze(data.root, max_length, data.num_episodes, data.seed)

    return EnvironmentEntry(TMAZE_SPEC, TMazeVector, prepare)


ENVIRONMENTS: dict[str, Callable[[], EnvironmentEntry]] = {"tmaze": _tmaze}
