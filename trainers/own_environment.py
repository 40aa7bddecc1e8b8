"""Unregistered environments of users, identified by a Gymnasium id or an import path.

The name of such an environment is the id or path (see `rate.envs.own`), and its settings are the
keyword arguments of its constructor. Runs and saved models store both to find it again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rate.envs.own import Maker, check_settings, drawing_mode, find_maker, make_own
from rate.envs.own_trial import Description, describe, describe_elsewhere
from rate.envs.spec import EnvironmentSpec
from rate.envs.worker_vector import Elsewhere, MakeEnv
from rate.errors import ConfigError
from rate.progress import OnProgress
from trainers.config import DataConfig
from trainers.environment import Environment, Length, VectorEnv
from trainers.environment_objects import find_object

if TYPE_CHECKING:
    from datamodules.collector import Collector

# Cached descriptions of environments by maker and settings, since simulators may start slowly. The
# maker is stored as well, so that its identity is not reused.
_FOUND: dict[tuple[Any, str], tuple[Any, Description]] = {}
PYTHON = "python"  # the setting for another Python; all other settings are the environment's


@dataclass(frozen=True)
class OwnEnvironment(Environment):
    """A user's environment. A length is a time limit in steps; None is the environment's own.

    The setting `python` is the path of another Python interpreter that runs the simulators.

    Attributes:
        maker: The factory of the environment, in this Python or another one.
        max_steps: The environment's own time limit in steps; None if it has none.
        draws: Whether rows are rendered.
        given: The factory, if it cannot be found by the name.
    """

    maker: Maker | Elsewhere | None = None
    max_steps: int | None = None
    draws: bool = False

    given: ClassVar[Maker | None]
    options = None
    num_envs = 16

    @classmethod
    def make(cls, options: dict[str, Any], workers: int | None = None) -> OwnEnvironment:
        maker: Maker | Elsewhere
        settings = {name: value for name, value in options.items() if name != PYTHON}
        if options.get(PYTHON) is None:
            maker = cls.given or find_object(cls.name) or find_maker(cls.name)
            found = _describe(cls.name, maker, settings)
        else:
            python = os.path.abspath(str(options[PYTHON]))  # noqa: PTH100 (a link stays one)
            maker = Elsewhere(python, cls.name, settings)
            found = _describe_elsewhere(maker)
            options = {**options, PYTHON: python}
        spaces = found.observation_space, found.action_space
        spec = EnvironmentSpec(cls.name, *spaces, float("nan"), dict(options))
        return cls(spec, settings, workers, maker, found.max_steps)

    def making(self, length: Any) -> MakeEnv:
        if isinstance(self.maker, Elsewhere):
            return replace(self.maker, max_steps=length, draws=self.draws)
        if self.maker is None:
            raise NotImplementedError("an environment without a maker makes itself")
        mode = drawing_mode(self.maker) if self.draws else None
        return partial(make_own, self.maker, self.settings, length, mode)

    def make_collector(self, policy: str, length: Any, noise: float = 0.0) -> Collector:
        if isinstance(self.maker, Elsewhere):
            raise ConfigError(f"{self.maker} is played by models alone, not by '{policy}'.")
        return super().make_collector(policy, length, noise)

    def make_rows(self, num_envs: int, length: Length) -> VectorEnv:
        """Returns a vector environment; see `make_vector`.

        Environments passed as objects run in this process unless `workers` is set, since worker
        processes may not be able to import them.
        """
        making = self.making(length)
        if (
            isinstance(making, Elsewhere)
            or find_object(self.name) is None
            or self.workers is not None
        ):
            return super().make_rows(num_envs, length)
        from rate.envs.serial_vector import SerialVectorEnv

        return SerialVectorEnv(making, num_envs)

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
        if data.store is None and data.expert is None:
            raise ConfigError(self._no_data)

    def prepare_data(self, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        self.check_data(data)
        return super().prepare_data(data, max_length, tell)

    def data_spec(self) -> EnvironmentSpec:
        return self.spec

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name, since other processes have no record class of this name yet."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return _record_from, (self.name, type(self).given, given)

    @property
    def _no_data(self) -> str:
        return (
            f"{self.name} has no expert that makes data here; name those to train on with "
            "--data: a file or folder of any format, or the name of a public data set. A policy of "
            "yours makes some: --data.expert my_package.policies:name."
        )

    def drawing(self) -> OwnEnvironment:
        return replace(self, draws=True)


def own_record(name: str, maker: Maker | None = None) -> type[OwnEnvironment]:
    """Returns the record of a user's environment.

    Args:
        name: A Gymnasium id or an import path.
        maker: The factory; None looks it up by the name when the environment is made.
    """
    parts = {"name": name, "given": staticmethod(maker) if callable(maker) else maker}
    return type("Record", (OwnEnvironment,), parts)


def _record_from(name: str, maker: Maker | None, given: dict[str, Any]) -> OwnEnvironment:
    return own_record(name, maker)(**given)


def _describe(name: str, maker: Maker, settings: dict[str, Any]) -> Description:
    check_settings(name, maker, settings)
    key = id(maker), json.dumps(settings, sort_keys=True)
    if key not in _FOUND:
        _FOUND[key] = maker, describe(name, maker, settings)
    return _FOUND[key][1]


def _describe_elsewhere(there: Elsewhere) -> Description:
    key = str(there), json.dumps(there.settings, sort_keys=True)
    if key not in _FOUND:
        _FOUND[key] = there, describe_elsewhere(there)
    return _FOUND[key][1]
