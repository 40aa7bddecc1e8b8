"""Environments of users, which nobody has registered: trained on, and kept in runs, by their path.

The name of such an environment is what a person types (see `rate.envs.own`), and its settings are
whatever its constructor takes. Both stand in every run and saved model, so that these find it
again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

from rate.envs.own import (
    Description,
    Maker,
    check_settings,
    describe,
    drawing_mode,
    find_maker,
    make_own,
)
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.progress import OnProgress
from trainers.config import DataConfig
from trainers.environment import Environment, Length

# What was found by making an environment, by what made it and its settings. A simulator may take
# long to start. The maker is kept with it, so that its identity stays its own.
_FOUND: dict[tuple[int, str], tuple[Maker, Description]] = {}


@dataclass(frozen=True)
class OwnEnvironment(Environment):
    """An environment of a user. A length is a time limit in steps; None is its own.

    Attributes:
        maker: What makes it.
        max_steps: Its own time limit, if it has one.
        draws: Whether its rows can be drawn.
        given: What makes it, where its name does not tell.
    """

    maker: Maker | None = None
    max_steps: int | None = None
    draws: bool = False

    given: ClassVar[Maker | None]
    options = None
    num_envs = 16

    @classmethod
    def make(cls, options: dict[str, Any], workers: int | None = None) -> OwnEnvironment:
        maker = cls.given or find_maker(cls.name)
        found = _describe(cls.name, maker, options)
        spaces = found.observation_space, found.action_space
        spec = EnvironmentSpec(cls.name, *spaces, float("nan"), dict(options))
        return cls(spec, dict(options), workers, maker, found.max_steps)

    def making(self, length: Any) -> Callable[[], gymnasium.Env[Any, Any]]:
        if self.maker is None:
            raise NotImplementedError("an environment without a maker makes itself")
        mode = drawing_mode(self.maker) if self.draws else None
        return partial(make_own, self.maker, self.settings, length, mode)

    def steps_at(self, length: Length) -> int:
        length = self.max_steps if length is None else length
        if length is None:
            raise ValueError(
                f"{self.name} has no time limit of its own, and an episode need never end; give "
                "the number of steps after which it is cut"
            )
        if length < 1:
            raise ValueError(f"an episode of {self.name} has at least 1 step")
        return length

    def check_data(self, data: DataConfig) -> None:
        if data.store is None:
            raise ConfigError(self._no_data)

    def prepare_data(self, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        raise ConfigError(self._no_data)

    @property
    def _no_data(self) -> str:
        return (
            f"{self.name} has no expert that makes data here; name those to train on with "
            "--data: a file or folder of any format, or the name of a public data set."
        )

    def drawing(self) -> OwnEnvironment:
        return replace(self, draws=True)


def own_record(name: str, maker: Maker | None = None) -> type[OwnEnvironment]:
    """The record of a user's environment.

    Args:
        name: What a person typed: Gymnasium's id, or an import path.
        maker: What makes it; None is looked up by the name, when the environment is made.
    """
    parts = {"name": name, "given": staticmethod(maker) if callable(maker) else maker}
    return type("Record", (OwnEnvironment,), parts)


def _describe(name: str, maker: Maker, settings: dict[str, Any]) -> Description:
    check_settings(name, maker, settings)
    key = id(maker), json.dumps(settings, sort_keys=True)
    if key not in _FOUND:
        _FOUND[key] = maker, describe(name, maker, settings)
    return _FOUND[key][1]
