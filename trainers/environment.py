"""The record of an environment: its specification, factory, expert, lengths and data."""

from __future__ import annotations

import hashlib
import json
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
from rate.renamed import current_settings, former_settings
from trainers.config import DataConfig

if TYPE_CHECKING:
    from datamodules.collector import Collector, Expert

BASELINES = ("expert", "random")  # what models are compared with
VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]
MakeVector = Callable[[int, Any], VectorEnv]
Length = int | None
"""Of an episode; what it counts, the environment says. None is the environment's own length."""


def at_length(length: Length) -> str:
    """A length for people, as the end of a sentence."""
    return "their own length" if length is None else f"{length:,}"


@dataclass(frozen=True)
class Environment:
    """An environment with its settings. A subclass is the record of one.

    A record says what is known before any settings are chosen, in class attributes, and names the
    environment's class, which is made from its settings and a length: `env(settings, length)`.

    Attributes:
        spec: The environment as models see it.
        settings: An instance of `options`.
        workers: Processes that step a simulator; see `EvaluationConfig`.
        name: The record's name in settings and results: that of its file.
        options: The dataclass of the environment's settings; None where its constructor alone
            knows what it takes.
        env: The environment's class. Its settings are the dataclass `<Class>Options` of its module,
            whose name is also that of its data's collector.
        expert_class: Import path of its expert, `module:Class`, which takes the share of random
            steps; imported at first use. Empty where there is none.
        spec_of: Returns the specification of settings; a record may override `make_spec` instead.
        vector: Its vector environment, made from a number of rows, settings and a length; None
            runs rows in worker processes.
        needs: The packages it needs.
        extra: The extra of this project that installs them.
        length_name: What a length is, for tables and figures.
        shortest: Data are of all lengths from this one on; None for one length alone.
        num_envs: Rows that are good to roll out side by side; None for any number.
        group: The outcome that tells two kinds of episodes apart, and the names of its 0 and 1.
        rolls_out: Whether there is anything to roll out in.
        keep_privileged_state: Data have the privileged state even if the model is not to see it,
            so that all models share them.
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
    shortest: ClassVar[int | None] = None
    num_envs: ClassVar[int | None] = None
    group: ClassVar[tuple[str, tuple[str, str]] | None] = None
    rolls_out: ClassVar[bool] = True
    keep_privileged_state: ClassVar[bool] = True

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        """Returns the environment as models see it; its name is used for data made here."""
        return cls.spec_of(settings)

    @classmethod
    def make(cls, options: dict[str, Any], workers: int | None = None) -> Environment:
        """The environment with settings, of which those left out have their defaults.

        Raises:
            ConfigError: If a setting does not work, or packages are missing; says how to install
                them.
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
        except TypeError as error:  # of a model of another version; a file's are checked before
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

    @property
    def no_expert(self) -> str:
        """What to do where nothing here plays better than chance: how to get data of others.

        It is the end of a message, and empty where something does.
        """
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
        """One environment whose episodes have a length, or one of a range of lengths."""
        made: gymnasium.Env[Any, Any] = self.making(length)()
        return made

    def make_vector(self, num_envs: int, length: Length = None) -> VectorEnv:
        """A vector environment, of any autoreset mode.

        Raises:
            ValueError: If there is no such length.
        """
        rows = self.make_rows(num_envs, length)
        if self.spec.frame_stack == 1:
            return rows
        from rate.envs.frame_stack import FrameStackVector

        return FrameStackVector(rows, self.spec.frame_stack)

    def make_rows(self, num_envs: int, length: Length) -> VectorEnv:
        """`make_vector` without the stack of frames."""
        if self.vector is not None:
            return self.vector(num_envs, self.settings, *_given(length))
        from rate.envs.worker_vector import WorkerVectorEnv

        return WorkerVectorEnv(self.making(length), num_envs, self.workers)

    def steps_at(self, length: Length) -> int:
        """The most steps that an episode of a length has.

        Raises:
            ValueError: If there is no such length, or nothing limits episodes of their own length.
        """
        return int(self.make_env(length).max_steps)  # type: ignore[attr-defined]

    def make_collector(self, policy: str, length: Any, noise: float = 0.0) -> Collector:
        """What collects episodes of a length.

        Args:
            policy: What plays: `expert`, `random`, or the import path of a policy, see
                `datamodules.policy_expert.find_expert`.
            length: The length.
            noise: How much of what the expert does is chance.

        Raises:
            ConfigError: If there is no such expert.
        """
        from datamodules.collector import Collector, RandomExpert

        if policy not in BASELINES:
            from datamodules.policy_expert import make_policy_collector

            return make_policy_collector(self.making(length), policy)
        if policy == "random":
            return Collector(self.making(length), RandomExpert)
        self.expert(noise)  # refused before the environment is made
        return Collector(self.making(length), partial(self.expert, noise))

    def check_data(self, data: DataConfig) -> None:
        """Refuse to make data that nothing here can play.

        Raises:
            ConfigError: If so; says what else to do.
        """
        is_played = data.store is not None or data.expert is not None or data.random_policy
        if self.no_expert and not is_played:
            raise ConfigError(
                f"{self.no_expert} Data made here are of a random policy, which teaches little; to "
                "train on them all the same: --data.random_policy true."
            )

    def prepare_data(self, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        """Make a data set, unless it exists: the environment's expert or `data.expert` plays it.

        The privileged state is in it.

        Args:
            data: How many episodes, where, and of which seed.
            max_length: The length of the episodes, or the greatest.
            tell: Told of progress.

        Returns:
            The path of the store.
        """
        from datamodules.collect import collect
        from datamodules.collector import expert_seeds

        policy = data.expert or "expert"
        if data.expert is not None:
            from datamodules.policy_expert import find_expert

            find_expert(data.expert)  # refused before anything is made
        played = self._showing_privileged_state()
        spec = played.data_spec()
        length = max_length if self.shortest is None else (self.shortest, max_length)
        settings = {
            **spec.options,
            "length": list(length) if isinstance(length, tuple) else length,
            "num_episodes": data.num_episodes,
            "noise": data.noise,
            "seed": data.seed,
        }
        if policy != "expert":
            settings["policy"] = policy
        first = json.dumps(former_settings("env", settings), sort_keys=True)
        digest = hashlib.sha256(first.encode()).hexdigest()[:8]
        name = spec.name.replace(":", "-").replace("/", "-")
        origin = {"source": f"{policy} on {spec.name}", "collector": policy}
        if policy == "expert":
            told = f"{spec.name}/expert-{max_length}-{data.num_episodes}-{digest}-v0"
            origin["source"] = f"Minari data set {told}"  # as stores that exist say
            origin["collector"] = f"{type(self).env.__module__.split('.')[-1]}-expert-1"
        return collect(
            data.root,
            f"{name}-{max_length}-{data.num_episodes}-seed{data.seed}-{digest}",
            partial(played.make_collector, policy, length, data.noise),
            seeds=expert_seeds(data.num_episodes, data.seed),
            spec=spec,
            provenance={**origin, **settings},
            workers=data.workers,
            on_progress=tell,
        )

    def data_spec(self) -> EnvironmentSpec:
        """What data that are collected in it say of it: how to make it once more."""
        options, gym_id = asdict(self.settings), type(self).gym_id()
        recorded = own_recorded(gym_id, options)
        return replace(self.make_spec(self.settings), options=options, recorded=recorded)

    def drawing(self) -> Environment:
        """The environment, of which a vector's rows can be drawn where that is possible."""
        return self

    def stacking(self, count: int) -> Environment:
        """The environment as it is to who sees its last `count` frames at once."""
        if count == 1:
            return self
        from rate.envs.frame_stack import stacked_space

        space = stacked_space(self.spec.observation_space, count)
        return replace(self, spec=replace(self.spec, observation_space=space, frame_stack=count))

    def making(self, length: Any) -> Any:
        """What makes an environment, also in another process, which need not import this module.

        See `rate.envs.worker_vector.MakeEnv`.
        """
        return partial(type(self).env, self.settings, *_given(length))

    def _showing_privileged_state(self) -> Environment:
        settings = self.settings
        if hasattr(settings, "privileged"):
            shown = settings.privileged or self.keep_privileged_state
            settings = replace(settings, privileged=shown)
        return replace(self, settings=settings)


def _given(length: Any) -> tuple[Any, ...]:
    """A length as an argument; without one there is none, and the environment has its own."""
    return () if length is None else (length,)
