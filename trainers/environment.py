"""The record of an environment: its specification, factory, expert, lengths and data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium

from rate import envs
from rate.advice import command, install
from rate.envs.recorded import own_recorded
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.progress import OnProgress
from rate.registry import import_path
from rate.renamed import current_settings
from trainers.config import DataConfig
from trainers.generated_data import generate

if TYPE_CHECKING:
    from datamodules.collector import Collector, Expert

BASELINES = ("expert", "random")  # what models are compared with
VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]
MakeVector = Callable[[int, Any], VectorEnv]
Length = int | None
"""Of an episode; what it counts, the environment says. None is the environment's own length."""


def at_length(length: Length) -> str:
    """Returns a length as text, for the end of a sentence."""
    return "their own length" if length is None else f"{length:,}"


@dataclass(frozen=True)
class Environment:
    """An environment with its settings; each subclass is the record of one environment.

    Class attributes hold what does not depend on settings. `env` is the environment's class, which
    is instantiated with settings and a length: `env(settings, length)`.

    Attributes:
        spec: The specification of the environment for models.
        settings: An instance of `options`.
        workers: Processes that step a simulator; see `EvaluationConfig`.
        name: The name in settings and results: that of the record's file.
        options: The dataclass of the environment's settings; None if any keyword of the
            constructor is a setting.
        env: The environment's class. Its settings are the dataclass `<Class>Options` of its module,
            whose name is also that of its data's collector.
        expert_class: Import path of its expert, `module:Class`, whose argument is the share of
            random steps; imported at first use. Empty if there is none.
        spec_of: Returns the specification of settings; a record may override `make_spec` instead.
        vector: Its vector environment, made from a number of rows, settings and a length; None
            runs rows in worker processes.
        needs: The packages it needs.
        extra: The extra of this project that installs them.
        length_name: The label of lengths in tables and figures.
        success_without_memory: The success rate of the best policy without memory, under default
            settings and at every length; None if it is not known.
        shortest: The minimum length of generated data, whose lengths vary from it to the maximum;
            None if all episodes have the maximum.
        num_envs: Preferred number of parallel rollouts; None for any number.
        group: A binary outcome that divides episodes into two groups, and their names (0, then 1).
        rolls_out: Whether rollouts are possible.
        keep_privileged_state: Record the privileged state in data even if the model does not use
            it, so that all models share the data.
        preset_base: The file in `trainers/presets` with settings over those of the generic presets;
            K and N then follow from the length of the data (`trainers.fit_to_data`). Empty for an
            environment with presets of its own, or with the generic ones as they are.
    """

    spec: EnvironmentSpec
    settings: Any = None
    workers: int | None = None

    name: ClassVar[str]
    options: ClassVar[type | None]
    env: ClassVar[Callable[..., gymnasium.Env[Any, Any]]]
    expert_class: ClassVar[str] = ""
    spec_of: ClassVar[Callable[..., EnvironmentSpec]]
    vector: ClassVar[Callable[..., VectorEnv] | None] = None
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    length_name: ClassVar[str] = "episode length (steps)"
    success_without_memory: ClassVar[float | None] = None
    shortest: ClassVar[int | None] = None
    num_envs: ClassVar[int | None] = None
    group: ClassVar[tuple[str, tuple[str, str]] | None] = None
    rolls_out: ClassVar[bool] = True
    keep_privileged_state: ClassVar[bool] = True
    preset_base: ClassVar[str] = ""

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        """Returns the specification for models; its name is part of the names of data sets."""
        return cls.spec_of(settings)

    @classmethod
    def make(cls, options: dict[str, Any], workers: int | None = None) -> Environment:
        """Returns the environment with the given settings; the others have their defaults.

        Raises:
            ConfigError: If a setting is invalid, or packages are missing; the message says how to
                install them.
        """
        missing = [package for package in cls.needs if find_spec(package) is None]
        if missing:
            raise ConfigError(
                f"{cls.name} needs {' and '.join(missing)}, which this Python does not have. "
                f"Install it with: {install(cls.extra)} ({command('doctor')} tells what runs here)"
            )
        if cls.options is None:
            raise NotImplementedError("a record without a dataclass of settings makes itself")
        try:
            known = [field.name for field in fields(cls.options)]
            settings = cls.options(**current_settings("env", options, known))
        except TypeError as error:  # of a model saved by another version
            raise ConfigError(f"{cls.name} does not have these settings: {error}.") from error
        spec = replace(cls.make_spec(settings), name=cls.name, options=asdict(settings))
        return cls(spec, settings, workers)

    @classmethod
    def gym_id(cls) -> str:
        """Returns the Gymnasium id of the environment's class, `RATE/<Class>-v0`; registers it.

        Raises:
            ConfigError: If another environment has this id.
        """
        return envs.register(f"{cls.env.__module__}:{cls.env.__name__}")

    @classmethod
    def check_options_name(cls) -> None:
        """Check that settings are `<Class>Options`, from which recorded environments are made.

        Raises:
            ConfigError: If they are not, or the environment is not made by a class of a module.
        """
        module, name = cls.env.__module__, getattr(cls.env, "__name__", "")
        found = getattr(sys.modules[module], f"{name}Options", None)
        if cls.options is not None and found is not cls.options:
            raise ConfigError(
                f"{cls.name}: the settings of {module}.{name} are the class "
                f"{cls.options.__name__}; rename it {name}Options, in the same module. Data sets "
                "record the environment's class, and its settings are found by this name."
            )

    @property
    def no_expert(self) -> str:
        """The error message of an environment without an expert; empty if there is an expert."""
        return ""

    def expert(self, noise: float) -> Expert:
        """Returns an expert that acts at random for a share `noise` of its steps.

        Raises:
            ConfigError: If there is none.
        """
        if not self.expert_class:
            raise ConfigError(f"{self.name} has no expert that plays for comparison.")
        found: Callable[[float], Expert] = import_path(self.expert_class, "expert")
        return found(noise)

    def make_env(self, length: Any = None) -> gymnasium.Env[Any, Any]:
        """Returns one environment with episodes of a length, or of a range of lengths."""
        made: gymnasium.Env[Any, Any] = self.making(length)()
        return made

    def make_vector(self, num_envs: int, length: Length = None) -> VectorEnv:
        """Returns a vector environment of any autoreset mode.

        Raises:
            ValueError: If the length is invalid.
        """
        rows = self.make_rows(num_envs, length)
        if self.spec.frame_stack == 1:
            return rows
        from rate.envs.frame_stack import FrameStackVector

        return FrameStackVector(rows, self.spec.frame_stack)

    def make_rows(self, num_envs: int, length: Length) -> VectorEnv:
        """Returns a vector environment as `make_vector`, without frame stacking."""
        if self.vector is not None:
            return self.vector(num_envs, self.settings, *_given(length))
        from rate.envs.worker_vector import WorkerVectorEnv

        return WorkerVectorEnv(self.making(length), num_envs, self.workers)

    def steps_at(self, length: Length) -> int:
        """Returns the maximum number of steps of an episode of a length.

        Raises:
            ValueError: If the length is invalid, or if it is None and episodes have no limit.
        """
        return int(self.make_env(length).max_steps)  # type: ignore[attr-defined]

    def gap(self, length: Length) -> int:
        """Returns the most steps between what must be remembered and its use; by default all."""
        return self.steps_at(length)

    def make_collector(self, policy: str, length: Any, noise: float = 0.0) -> Collector:
        """Returns a collector of episodes of a length.

        Args:
            policy: `expert`, `random`, or the import path of a policy, see
                `datamodules.policy_expert.find_expert`.
            length: The length.
            noise: Share of the expert's steps at which it acts at random.

        Raises:
            ConfigError: If there is no such expert.
        """
        from datamodules.collector import Collector, RandomExpert

        if policy not in BASELINES:
            from datamodules.policy_expert import make_policy_collector

            return make_policy_collector(self.making(length), policy, noise)
        if policy == "random":
            return Collector(self.making(length), RandomExpert)
        self.expert(noise)  # raises before the environment is made
        return Collector(self.making(length), partial(self.expert, noise))

    def check_data(self, data: DataConfig) -> None:
        """Check that data of this environment can be generated.

        Raises:
            ConfigError: If there is no policy for it; the message names the alternatives.
        """
        is_played = data.store is not None or data.expert is not None or data.random_policy
        if self.no_expert and not is_played:
            raise ConfigError(
                f"{self.no_expert} Data made here are of a random policy, which teaches little; to "
                "train on them all the same: --data.random_policy true."
            )

    def prepare_data(self, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        """Generate a data set unless it exists, with the environment's expert or `data.expert`.

        The privileged state is recorded if `keep_privileged_state` or the settings say so.

        Args:
            data: The number of episodes, the folder and the seed.
            max_length: The length of the episodes, or the maximum length.
            tell: Called with the progress.

        Returns:
            The path of the store.
        """
        return generate(self, data, max_length, tell)

    def expert_episode(self, length: Length) -> tuple[int, int, float]:
        """Returns the length, maximum number of steps and return of an expert's episode.

        It is asked of environments with `preset_base` alone.

        Raises:
            ValueError: If the length is invalid.
        """
        raise NotImplementedError

    def data_lengths(self, max_length: int) -> int | tuple[int, int]:
        """Returns the length of generated episodes, or the range in which it varies."""
        return max_length if self.shortest is None else (self.shortest, max_length)

    def data_spec(self) -> EnvironmentSpec:
        """Returns the specification for data collected here, which records how to recreate it."""
        options, gym_id = asdict(self.settings), type(self).gym_id()
        recorded = own_recorded(gym_id, options)
        return replace(self.make_spec(self.settings), options=options, recorded=recorded)

    def drawing(self) -> Environment:
        """Returns the environment with rendering enabled for vector rows, if it supports that."""
        return self

    def stacking(self, count: int) -> Environment:
        """Returns the environment whose observations are stacks of the last `count` frames."""
        if count == 1:
            return self
        from rate.envs.frame_stack import stacked_space

        space = stacked_space(self.spec.observation_space, count)
        return replace(self, spec=replace(self.spec, observation_space=space, frame_stack=count))

    def making(self, length: Any) -> Any:
        """Returns a factory of environments that other processes can unpickle.

        They need not import this module; see `rate.envs.worker_vector.MakeEnv`.
        """
        return partial(type(self).env, self.settings, *_given(length))


def _given(length: Any) -> tuple[Any, ...]:
    """Returns the length as a tuple of arguments; empty for None, the environment's default."""
    return () if length is None else (length,)
