"""Training on data alone: the data specify the observation and action spaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.progress import OnProgress
from trainers.config import NO_ENVIRONMENT, DataConfig
from trainers.environment import Environment, Length, VectorEnv


class DataAlone(Environment):
    """The record of a run without an environment; there are no rollouts."""

    name = NO_ENVIRONMENT
    options = None
    rolls_out = False

    @classmethod
    def make(cls, options: dict[str, Any], workers: int | None = None) -> Environment:
        raise ConfigError(_NOTHING_TO_PLAY)

    @classmethod
    def of(cls, data: DataConfig) -> Environment:
        """Returns a record with the spaces of the data of a run.

        Raises:
            ConfigError: If the run names no data.
            DatasetError: If the data do not exist or cannot be trained on.
        """
        from trainers.data_sets import open_data

        if data.store is None:
            raise ConfigError(
                "There is neither an environment nor data: name the data to train on with --data, "
                "or an environment with --env."
            )
        spec = open_data(data).spec
        return cls(replace(spec, name=NO_ENVIRONMENT, options={}, target_return=float("nan")))

    def make_rows(self, num_envs: int, length: Length) -> VectorEnv:
        raise ConfigError(_NOTHING_TO_PLAY)

    def steps_at(self, length: Length) -> int:
        raise ConfigError(_NOTHING_TO_PLAY)

    def prepare_data(self, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        raise ConfigError(_NOTHING_TO_PLAY)


_NOTHING_TO_PLAY = (
    "This was trained on data alone, without an environment, so that there is nothing to play in. "
    "Name an environment: --env, and Gymnasium's id or the import path of what makes one."
)
