"""Training in Python: any environment and any data to a run, a policy and scores.

    from trainers.api import Dataset, Run, train

    run = train(env=MyEnv, data={"observations": ..., "actions": ..., ...}, model="rate")
    policy = run.policy()
    actions = policy.act(observations)

What is made is what the command `rate train` makes: a folder with all that is needed to go on, to
score and to act, which `rate evaluate`, `rate plot` and `rate video` take as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.dataset import Dataset
from rate.config import Decoding
from rate.errors import ConfigError
from rate.policy import Policy
from rate.weights import SavedModel, find_models, load_model
from trainers.cli import parse
from trainers.commands.evaluate import find_candidates, prepare, score
from trainers.config import NO_ENVIRONMENT, DataConfig, RunConfig
from trainers.config_files import load_config_file
from trainers.environment import Environment, Length
from trainers.held_environments import name_of
from trainers.meter import Meter
from trainers.registry import environment_of, find_environment
from trainers.train import train as _train

__all__ = ["Dataset", "Run", "train"]

Data = Any  # a Dataset, Path or str, or what Dataset.from_arrays takes


@dataclass(frozen=True)
class Run:
    """A training run: the folder that it is kept in.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """The run in a folder.

        Raises:
            WeightsError: If there are no trained weights in it.
        """
        find_models(Path(folder))
        return cls(Path(folder))

    @property
    def config(self) -> RunConfig:
        """Its settings."""
        return load_config_file(self.folder / "config.yaml")

    @property
    def scores(self) -> list[dict[str, Any]]:
        """Its scores as they were after training; see `evaluate`."""
        return self._evaluation("rows")

    @property
    def held_out(self) -> list[dict[str, Any]]:
        """How well its weights predict actions of held-out episodes, which takes no environment.

        For the `last` and the `best` weights the means over all steps measured, and tables of them
        `by_position` and `by_distance` (see `trainers.held_out.Account`); none where no episode is
        held out (`data.held_out`).
        """
        return self._evaluation("held_out")

    def _evaluation(self, name: str) -> list[dict[str, Any]]:
        content = json.loads((self.folder / "evaluation.json").read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = content.get(name, [])  # older runs held nothing out
        return rows

    def load(self, which: str = "last") -> SavedModel:
        """Its model: the `last` weights, or the `best`.

        These are the best in rollouts on the selection seeds, or of a run on data alone those that
        predict held-out actions best.

        Raises:
            ConfigError: If it has none of these.
            WeightsError: If they are damaged.
        """
        models = find_models(self.folder)
        if which not in models:
            raise ConfigError(
                f"{self.folder} has no weights '{which}'; it has {', '.join(models)}."
            )
        return load_model(models[which])

    def policy(
        self,
        num_envs: int = 1,
        *,
        which: str = "last",
        target_return: float | None = None,
        decoding: Decoding | None = None,
        seed: int = 0,
    ) -> Policy:
        """The trained model as agents that act side by side.

        Args:
            num_envs: How many; `act` takes as many observations.
            which: See `load`.
            target_return: What to ask for, in the environment's reward units; None is what the run
                asks for.
            decoding: How actions are drawn; None as in the run's rollouts.
            seed: Of what is drawn.
        """
        saved, settings = self.load(which), self.config.evaluation
        wanted = settings.target_return if target_return is None else target_return
        return Policy(
            saved.model,
            num_envs=num_envs,
            target_return=saved.spec.target_return if wanted is None else wanted,
            decoding=decoding or saved.decoding,
            seed=seed,
            recompute_window=settings.recompute_window,
        )

    def environment(self) -> Environment:
        """The environment that the model was trained for.

        Raises:
            ConfigError: If it cannot be found, or has changed; says what to do.
        """
        return environment_of(self.load().spec)

    def evaluate(
        self,
        episodes: int | None = None,
        lengths: Sequence[Length] | None = None,
        *,
        which: str = "last",
        first_seed: int | None = None,
    ) -> list[dict[str, Any]]:
        """Roll the model out, in episodes that it was not chosen by.

        Args:
            episodes: How many of each length; None as many as the run has.
            lengths: Of episodes; None are those of the run.
            which: See `load`.
            first_seed: Seed of the first episode; None takes the run's held-out seeds.

        Returns:
            A row for each length: `return`, `success` where the environment tells it, their
            standard errors, and others.

        Raises:
            ConfigError: If there is no environment to play in.
        """
        self.load(which)
        given: dict[str, Any] = {"episodes": episodes, "lengths": lengths and list(lengths)}
        given = {name: value for name, value in given.items() if value is not None}
        candidate = next(c for c in find_candidates(self.folder) if c.label["which"] == which)
        prepared = prepare(candidate, given, first_seed)
        return list(score(prepared, next(prepared.saved.model.parameters()).device))


def train(
    env: str | Callable[..., Any] | None = None,
    data: Data | None = None,
    model: str = "rate",
    *,
    steps: int | None = None,
    seed: int | None = None,
    name: str | None = None,
    output: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train a model, and score it in rollouts if there is an environment.

    Args:
        env: One of this project by its name; another by Gymnasium's id or its import path
            (`my_package.envs:make_env`); or a class of environments, or a function that returns
            one. None trains on data alone.
        data: What to train on: a `Dataset`; a file or folder of any format, or the name of a public
            data set that is here; or arrays, as `Dataset.from_arrays` takes them. None has the
            expert of an environment of this project play them.
        model: A preset: `rate`, `rmt`, `trxl`, `dtxl`, `dt`, `dt_relative` and others.
        steps: Optimiser steps; None is the preset's number.
        seed: Of weights, batches and noise.
        name: Of the run's folder, which is `environment-name-seed`.
        output: The folder of runs.
        settings: Any others by their dotted names, `{"model.d_model": 128, "env.size": 9}`, as
            options of `rate train`.
        resume: Continue the run of this name if there is one, and score it if it has finished.
        progress: Tell of progress on standard error.

    Returns:
        The run.

    Raises:
        ConfigError: If a setting cannot work; the message names it.
        DatasetError: If the data cannot be trained on.
        TrainingError: If training cannot go on.
    """
    environment = NO_ENVIRONMENT if env is None else name_of(env)
    chosen: dict[str, Any] = {
        "training.max_steps": steps,
        "training.seed": seed,
        "logging.name": name,
        "logging.output": None if output is None else str(output),
        "logging.progress": progress,
    }
    chosen = {option: value for option, value in chosen.items() if value is not None}
    chosen |= dict(settings or {})
    if data is not None:
        root = str(chosen.get("data.root", DataConfig.root))
        chosen["data.store"] = str(_stored(data, root, progress))
    words = [f"--model={model}", *(_word(environment, *each) for each in chosen.items())]
    command = parse(environment, words)
    meter = Meter(shown=progress)
    for note in command.notes:
        meter.say(f"note: {note}")
    return Run(_train(command.config, "auto" if resume else None).folder)


def _stored(data: Data, root: str, progress: bool) -> Path | str:
    """The data as `data.store` names them."""
    if isinstance(data, Dataset):
        return data.path
    if isinstance(data, Path | str):
        return data
    with Meter(shown=progress) as meter:
        return Dataset.from_arrays(data, root, on_progress=meter.show).path


def _word(environment: str, option: str, value: Any) -> str:
    """A setting as a command line has it."""
    is_free = option.startswith("env.") and find_environment(environment).options is None
    text = value if isinstance(value, str) and not is_free else json.dumps(value)
    return f"--{option}={text}"
