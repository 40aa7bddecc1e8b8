"""The passive T-Maze."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import (
    DEFAULT_LENGTH,
    TMaze,
    TMazeOptions,
    TMazeVector,
    check_length,
    tmaze_spec,
)
from rate.progress import OnProgress
from trainers.config import DataConfig
from trainers.environment import Environment, Length


class Record(Environment):
    """T-Maze; an oracle generates its data, balanced in lengths and goals."""

    name = "tmaze"
    options = TMazeOptions
    env = TMaze
    success_without_memory = 1 / 2

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return tmaze_spec()

    def making(self, length: Any) -> Callable[[], TMaze]:
        return partial(TMaze, DEFAULT_LENGTH if length is None else length)

    def make_rows(self, num_envs: int, length: Length) -> TMazeVector:
        return TMazeVector(num_envs, DEFAULT_LENGTH if length is None else length)

    def steps_at(self, length: Length) -> int:
        return check_length(DEFAULT_LENGTH if length is None else length)

    def prepare_data(self, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        if data.expert is not None:
            return super().prepare_data(data, max_length, tell)
        from datamodules.tmaze import generate_tmaze

        return generate_tmaze(data.root, max_length, data.num_episodes, data.seed, tell)
