"""Training in Python: any environment and any data to a run, a policy and scores.

    from trainers.api import Dataset, Run, train

    run = train(env=MyEnv, data={"observations": ..., "actions": ..., ...}, model="rate")
    policy = run.policy()
    actions = policy.act(observations)

`train` writes the same run folder as the command `rate train`. It holds what resuming, scoring
and acting need; `rate evaluate`, `rate plot` and `rate video` read it as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datamodules.dataset import Dataset
from rate.config import Decoding
from rate.errors import ConfigError
from rate.files import load_json, write_atomic
from rate.hub import CARD, check_name, upload
from rate.policy import Policy
from rate.weights import SavedModel, find_models, load_model, save_model
from trainers.cli import parse
from trainers.commands.evaluate import find_candidates, prepare
from trainers.commands.model_card import model_card, published_model
from trainers.commands.outputs import output_errors
from trainers.commands.scoring import score, shown
from trainers.config import NO_ENVIRONMENT, DataConfig, RunConfig
from trainers.config_files import load_config_file
from trainers.environment import Environment, Length
from trainers.environment_objects import register_object
from trainers.meter import Meter
from trainers.policies import make_policy
from trainers.registry import environment_of, find_environment
from trainers.train import train as _train

__all__ = ["Dataset", "Run", "train"]

Data = Any  # a Dataset, Path or str, or what Dataset.from_arrays takes


@dataclass(frozen=True)
class Run:
    """A training run, identified by its folder.

    Attributes:
        folder: The run folder.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Returns the run in a folder.

        Raises:
            WeightsError: If the folder has no trained weights.
        """
        find_models(Path(folder))
        return cls(Path(folder))

    @property
    def config(self) -> RunConfig:
        """The configuration of the run."""
        return load_config_file(self.folder / "config.yaml")

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The scores of the final evaluation after training, in the format of `evaluate`."""
        return self._evaluation("rows")

    @property
    def held_out(self) -> list[dict[str, Any]]:
        """Metrics of action prediction on held-out episodes; no environment is needed.

        One row for the `last` and one for the `best` weights: means over all measured steps, and
        the tables `by_position` and `by_distance` (see `trainers.held_out.Account`). Empty if no
        episode is held out (`data.held_out`).
        """
        return self._evaluation("held_out")

    def _evaluation(self, name: str) -> list[dict[str, Any]]:
        content = load_json(self.folder / "evaluation.json")
        rows: list[dict[str, Any]] = content.get(name, [])  # older runs held nothing out
        return rows

    def load(self, which: str = "last") -> SavedModel:
        """Returns the model with the `last` or the `best` weights.

        The best weights have the best score on the selection seeds or, in a run on data alone, the
        best prediction of held-out actions.

        Raises:
            ConfigError: If the run has no such weights.
            WeightsError: If the weights are damaged.
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
        """Returns the trained model as a policy for a batch of environments.

        Args:
            num_envs: Batch size: number of observations that `act` takes.
            which: `last` or `best`; see `load`.
            target_return: Target return in the environment's reward units; None takes the run's.
            decoding: How actions are drawn; None takes the run's decoding.
            seed: Seed of the sampled actions.
        """
        saved, settings = self.load(which), self.config.evaluation
        if target_return is not None:
            settings = replace(settings, target_return=target_return)
        policy = make_policy(
            saved.model,
            settings,
            saved.spec.target_return,
            num_envs=num_envs,
            trained_range=saved.trained_range,
            decoding=decoding or saved.decoding,
            seed=seed,
        )
        policy.spec = saved.spec
        return policy

    def environment(self) -> Environment:
        """Returns the environment that the model was trained for.

        Raises:
            ConfigError: If it cannot be found or has changed; the message names the remedy.
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
        """Roll the model out on held-out seeds, which did not select its checkpoint.

        Args:
            episodes: Episodes per length; None takes the run's number.
            lengths: Episode lengths; None takes the run's.
            which: `last` or `best`; see `load`.
            first_seed: Seed of the first episode; None takes the run's held-out seeds.

        Returns:
            One row per length: `return`, `success` if the environment reports it, their standard
            errors, and other columns.

        Raises:
            ConfigError: If the run has no environment for rollouts.
        """
        self.load(which)
        given: dict[str, Any] = {"episodes": episodes, "lengths": lengths and list(lengths)}
        given = {name: value for name, value in given.items() if value is not None}
        candidate = next(c for c in find_candidates(self.folder) if c.label["which"] == which)
        prepared = prepare(candidate, given, first_seed)
        device = next(prepared.saved.model.parameters()).device
        with Meter() as meter:
            return list(score(prepared, device, shown(prepared, meter)))

    def push_to_hub(
        self,
        name: str,
        *,
        which: str = "last",
        licence: str | None = None,
        private: bool = True,
        hub: Path | str | None = None,
    ) -> str:
        """Publish the model with a card that is written from the run.

        What is published acts as `policy` does: `Policy.from_pretrained(name)`. Paths of this
        computer are left out.

        Args:
            name: OWNER/NAME.
            which: `last` or `best`; see `load`.
            licence: Of the weights, by its identifier on the hub (`mit`); None states none.
            private: Whether a new repository on the Hugging Face hub is private.
            hub: A folder in place of the Hugging Face hub, for example on a shared disk.

        Returns:
            The address of the model, or its folder.

        Raises:
            ConfigError: If the name is invalid, the run has no such weights, or the hub cannot be
                written to.
        """
        check_name(name)
        saved = published_model(self.load(which), self.config.evaluation)
        card = model_card(self.folder, saved, name, which, licence)
        with TemporaryDirectory() as draft:
            folder = Path(draft) if hub is None else Path(hub) / name
            with output_errors(folder / CARD):
                save_model(saved, folder)
                write_atomic(folder / CARD, card)
            if hub is not None:
                return str(folder)
            message = f"The {which} weights of {self.folder.name}"
            return upload(folder, name, private=private, message=message)


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
        env: The name of an environment of this project; a Gymnasium id or an import path
            (`my_package.envs:make_env`); or an environment class, or a function that returns an
            environment. None trains on data alone.
        data: The training data: a `Dataset`; a file or folder of any supported format; the name of
            a public data set that is on this machine; or arrays, as `Dataset.from_arrays` takes
            them. None collects episodes of the environment's own expert.
        model: A preset: `rate`, `rmt`, `trxl`, `dtxl`, `dt`, `dt_relative` and others.
        steps: Optimiser steps; None takes the preset's number.
        seed: Seed of weights, batches and noise.
        name: Middle part of the name of the run folder, `environment-name-seed`.
        output: The folder that contains the runs.
        settings: Further settings by their dotted names, `{"model.d_model": 128, "env.size": 9}`,
            as options of `rate train`.
        resume: Continue the run of this name if it exists, and score it if it has finished.
        progress: Show progress on standard error.

    Returns:
        The run.

    Raises:
        ConfigError: If a setting is invalid; the message names it.
        DatasetError: If the data cannot be trained on.
        TrainingError: If training cannot continue.
    """
    environment = NO_ENVIRONMENT if env is None else register_object(env)
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
    """Returns the value of `data.store` for the data; arrays are written to a store first."""
    if isinstance(data, Dataset):
        return data.path
    if isinstance(data, Path | str):
        return data
    with Meter(shown=progress) as meter:
        return Dataset.from_arrays(data, root, on_progress=meter.show).path


def _word(environment: str, option: str, value: Any) -> str:
    """Returns a setting as a command-line option, `--name=value`."""
    is_free = option.startswith("env.") and find_environment(environment).options is None
    text = value if isinstance(value, str) and not is_free else json.dumps(value)
    return f"--{option}={text}"
