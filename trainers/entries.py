"""What training needs of an environment, and how it is found in the modules of one."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from rate.envs.recorded import own_recorded
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.progress import OnProgress
from trainers.config import DataConfig

if TYPE_CHECKING:
    from datamodules.players import Player

BASELINES = ("expert", "random")  # what models are compared with
MakeVector = Callable[[int, int], "gymnasium.vector.VectorEnv[Any, Any, Any]"]


@dataclass(frozen=True)
class EnvironmentEntry:
    """What training needs of an environment.

    Attributes:
        spec: As models see it.
        make_vector: Makes a vector environment, of any autoreset mode, from a number of rows and a
            length.
        steps_at: The most steps an episode of a length has; a `ValueError` if there is no such
            length.
        prepare_data: Makes the environment's own data set, unless it exists, from the settings, the
            length and whom to tell of progress; returns the path of the store.
        make_player: Plays episodes of a length as `expert` or `random` does.
        num_envs: Rows that are good to roll out side by side; None for any number.
        group: The outcome that tells two kinds of episodes apart, and the names of its 0 and 1.
        no_expert: What to do where nothing here plays better than a random policy: how to get data
            of others, as the end of a message. Empty where something does.
    """

    spec: EnvironmentSpec
    make_vector: MakeVector
    steps_at: Callable[[int], int]
    prepare_data: Callable[[DataConfig, int, OnProgress], Path]
    make_player: Callable[[str, int], Player] | None = None
    num_envs: int | None = None
    group: tuple[str, tuple[str, str]] | None = None
    no_expert: str = ""


@dataclass(frozen=True)
class Kind:
    """An environment whose parts are named as the rest of this package names them.

    In `module` there are the environment `name`, its settings `nameOptions` and its `spec`
    function; `expert` plays it.

    Attributes:
        module: The environment's module in `rate.envs`, and its expert's in `datamodules`.
        name: The environment's class; `RATE/name-v0` is its Gymnasium id.
        spec: The function that gives its specification.
        shortest: Data are of all lengths from this one on; None for one length alone.
        num_envs: Rows that are good to roll out side by side.
        vector: Name of its own vector environment; None runs rows in worker processes.
        group: See `EnvironmentEntry`.
        keep_hint: Data have the hidden state even if the model is not to see it, so that all
            models share them.
    """

    module: str
    name: str
    spec: str
    shortest: int | None = None
    num_envs: int | None = None
    vector: str | None = None
    group: tuple[str, tuple[str, str]] | None = None
    keep_hint: bool = True

    @property
    def options(self) -> tuple[str, str]:
        """Module and name of the dataclass of its settings."""
        return f"rate.envs.{self.module}", f"{self.name}Options"

    def load(self, name: str) -> Any:
        return getattr(importlib.import_module(f"rate.envs.{self.module}"), name)

    def make_env(self, options: Any, length: Any) -> gymnasium.Env[Any, Any]:
        env: gymnasium.Env[Any, Any] = self.load(self.name)(options, length)
        return env

    def make_player(self, options: Any, policy: str, length: Any, noise: float = 0.0) -> Player:
        from datamodules.players import Player, RandomExpert

        if policy == "random":
            return Player(partial(self.make_env, options, length), RandomExpert)
        module = importlib.import_module(f"datamodules.{self.module}")
        expert = getattr(module, f"{self.name}Expert", None)
        if expert is None:
            raise ConfigError(f"{self.module} has no expert that plays for comparison.")
        return Player(partial(self.make_env, options, length), partial(expert, noise))

    def entry(self, options: Any, workers: int | None) -> EnvironmentEntry:
        return EnvironmentEntry(
            spec=self.load(self.spec)(options),
            make_vector=partial(self._make_vector, options, workers),
            steps_at=lambda length: int(self.load(self.name)(options, length).max_steps),
            prepare_data=partial(self._prepare, options),
            make_player=partial(self.make_player, options),
            num_envs=self.num_envs,
            group=self.group,
        )

    def _make_vector(self, options: Any, workers: int | None, num_envs: int, length: int) -> Any:
        if self.vector is not None:
            return self.load(self.vector)(num_envs, options, length)
        from rate.envs.workers import WorkerVector

        return WorkerVector(partial(self.make_env, options, length), num_envs, workers)

    def _prepare(self, options: Any, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        """Have the expert play the environment's own data set, with the hidden state in it."""
        from datamodules.collect import collect
        from datamodules.players import expert_seeds

        if hasattr(options, "hint"):
            options = replace(options, hint=options.hint or self.keep_hint)
        length = max_length if self.shortest is None else (self.shortest, max_length)
        settings = {
            **asdict(options),
            "length": list(length) if isinstance(length, tuple) else length,
            "num_episodes": data.num_episodes,
            "noise": data.noise,
            "seed": data.seed,
        }
        spec: EnvironmentSpec = self.load(self.spec)(options)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{spec.name}-{max_length}-{data.num_episodes}-seed{data.seed}-{digest}"
        words = {key: value for key, value in asdict(options).items() if key != "hint"}
        return collect(
            data.root,
            name,
            partial(self.make_player, options, "expert", length, data.noise),
            seeds=expert_seeds(data.num_episodes, data.seed),
            spec=replace(
                spec,
                options=asdict(options),
                recorded=own_recorded(f"RATE/{self.name}-v0", asdict(options)),
            ),
            provenance={"collector": f"{self.module}-expert-1", **settings},
            dataset_id=f"{spec.name}/expert-{max_length}-{data.num_episodes}-{digest}-v0",
            env=lambda: gymnasium.make(
                f"RATE/{self.name}-v0", length=length, disable_env_checker=True, **asdict(options)
            ),
            description=f"{self.name}, played by an expert (noise {data.noise}; {words}). The "
            "observation's part 'hint' is the hidden state, which an agent should not see.",
            workers=data.workers,
            on_progress=tell,
        )
