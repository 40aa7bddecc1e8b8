"""The configuration of a run: a typed, validated dataclass that can be stored as YAML.

The sections on data, learning and devices are in `config_data`, `config_learning` and
`config_training`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rate.architecture import make_config
from rate.config import Decoding, ModelConfig, ReturnToGo
from rate.errors import ConfigError
from trainers.checks import all_finite, at_least, choice, episode_seeds
from trainers.config_data import DataConfig, ReadingConfig, Window, check_consecutive
from trainers.config_learning import (
    CurriculumConfig,
    LossConfig,
    ObjectiveConfig,
    OptimizerConfig,
)
from trainers.config_online import ONLINE, OnlineConfig, check_source
from trainers.config_training import TrainingConfig

__all__ = [
    "NO_ENVIRONMENT",
    "CurriculumConfig",
    "DataConfig",
    "EvaluationConfig",
    "LoggingConfig",
    "LossConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "ReadingConfig",
    "Resume",
    "RunConfig",
    "TrainingConfig",
    "Window",
]

_SLASHES = re.compile(r"[/\\:]+")  # not allowed in folder names
Resume = Path | Literal["auto"] | None  # the run to continue: a folder, or the run of the same name
NO_ENVIRONMENT = "none"  # the environment of a run on data alone


@dataclass(frozen=True)
class EvaluationConfig:
    """Online rollouts: during training on selection seeds, after it on held-out ones.

    Attributes:
        every_n_steps: Optimiser steps between two evaluations on the selection seeds; 0 never.
        held_out_every_n_steps: Optimiser steps between two measurements on a batch of held-out
            windows (`data.held_out`); 0 measures at the end alone.
        lengths: Episode lengths of the final evaluation on the held-out seeds. What a length is,
            the environment says: steps of an episode; for minigrid the size of the grid; a time
            limit for one's own. None (`null`) is the environment's own length.
        selection_lengths: Episode lengths of the evaluations that choose the best checkpoint.
        episodes: Episodes per length.
        selection_episodes: Episodes per length of the evaluations that choose; None is as many.
        num_envs: Episodes rolled out side by side; None is the environment's own choice.
        workers: Processes that step a simulator; None is one per core, but from four cores on one
            is left to the policy.
        selection_seed: First environment seed of the evaluations that choose.
        test_seed: First environment seed of the evaluation that is reported.
        target_return: The return asked for; None is the environment's own.
        target_from_data: Where `target_return` is None, ask for the return of the data's best
            episode instead.
        return_to_go: The return-to-go of a rollout: rewards are subtracted from the target
            (`decrease`, as published), and the rest is kept in the range of the training data
            (`clamp`, the default), the target is held (`hold`), or each segment of K steps starts
            from the target again (`per_segment`, RATE on MuJoCo). Where rewards arrive all the
            time, `decrease` leaves the range of the data in rollouts that are longer than its
            episodes.
        recompute_window: Sliding-window models recompute their window at every step past their
            context, as in training (slow); false keeps a KV cache of the last K steps instead.
        decoding: How actions are drawn.
    """

    every_n_steps: int = 100
    held_out_every_n_steps: int = 100
    lengths: list[int | None] = field(default_factory=lambda: [None])
    selection_lengths: list[int | None] = field(default_factory=lambda: [None])
    episodes: int = 100
    selection_episodes: int | None = None
    num_envs: int | None = None
    workers: int | None = None
    selection_seed: int = 10_000
    test_seed: int = 20_000
    target_return: float | None = None
    target_from_data: bool = False
    return_to_go: ReturnToGo = "clamp"
    recompute_window: bool = True
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        choice("evaluation.return_to_go", self.return_to_go, ReturnToGo)
        at_least("evaluation.every_n_steps", self.every_n_steps, 0)
        at_least("evaluation.held_out_every_n_steps", self.held_out_every_n_steps, 0)
        at_least("evaluation.episodes", self.episodes, 1)
        for name in ("selection_episodes", "num_envs", "workers"):
            if getattr(self, name) is not None:
                at_least(f"evaluation.{name}", getattr(self, name), 1)
        choosing = self.selection_episodes or self.episodes
        episode_seeds("evaluation.test_seed", self.test_seed, self.episodes)
        episode_seeds("evaluation.selection_seed", self.selection_seed, choosing)
        apart = abs(self.selection_seed - self.test_seed)
        if apart < max(self.episodes, self.selection_episodes or 0):
            raise ConfigError(
                f"evaluation.selection_seed={self.selection_seed} and "
                f"evaluation.test_seed={self.test_seed} share seeds with "
                f"evaluation.episodes={self.episodes}: a checkpoint must not be chosen on the "
                "seeds it is reported on. Move them further apart."
            )

    def check_model(self, model: ModelConfig) -> None:
        """Check that the mode of the return-to-go goes with a model.

        Raises:
            ConfigError: If the model is not given returns-to-go.
        """
        usual = self.return_to_go in ("clamp", "decrease")  # the default, and that of older runs
        if not usual and not model.condition_on_return:
            raise ConfigError(
                f"evaluation.return_to_go={self.return_to_go} changes nothing: the model is not "
                "given returns-to-go (model.condition_on_return=false). Leave it out."
            )


@dataclass(frozen=True)
class LoggingConfig:
    """Where metrics go.

    Attributes:
        output: Folder of the runs; a run is a folder in it, named `env-model-seed`, with a number
            where another run has that name.
        name: Stands for the model in the folder's name; None is the preset's name, and what the
            command line changes of its memory, blocks and curriculum (`rate-gtrxl-nmt10`).
        tensorboard: Write TensorBoard events beside `metrics.csv`.
        wandb: Log to Weights & Biases as well; settings in `wandb_config.yaml`, without which it
            stays offline.
        progress: Show progress bars.
        comment: A note of your own, kept in the run's configuration.
    """

    output: str = "runs"
    name: str | None = None
    tensorboard: bool = True
    wandb: bool = False
    progress: bool = True
    comment: str = ""

    def __post_init__(self) -> None:
        if self.name is not None and (not self.name or set(self.name) & set("/\\")):
            raise ConfigError(
                f"logging.name is '{self.name}'; it is part of a folder's name and must not be "
                "empty or have slashes in it. The folder it stands in is logging.output."
            )


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Attributes:
        environment: Name of a registered environment; Gymnasium's id or the import path of one's
            own (see `rate.envs.own`); or `none`, to train on data alone.
        name: The model's name in tables and folder names.
        env: The environment's own settings. Of one's own: what its constructor takes.
        model: The architecture.
        data: The trajectories.
        online: Acting while learning, where batches come from the environment.
        training: The optimisation loop.
        optimizer: AdamW and its schedule.
        loss: The settings of the learning rule, `training.objective`.
        curriculum: Growth of the number of segments.
        evaluation: Online rollouts.
        logging: Where metrics go.
    """

    environment: str = "tmaze"
    name: str = "rate"
    env: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=make_config)
    data: DataConfig = field(default_factory=DataConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: ObjectiveConfig = field(default_factory=LossConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        all_finite(self.to_dict())
        if not self.model.carries_state and self.training.segments != 1:
            raise ConfigError(
                f"training.segments={self.training.segments} needs a model that carries memory; "
                f"with model.backbone={self.model.backbone} set training.segments=1 and widen "
                "model.context_length, or train on windows from anywhere in whole episodes "
                "(data.window=random)."
            )
        self.evaluation.check_model(self.model)
        check_source(self)
        self.loss.check_window(self.window - self.is_online)  # an unroll is a step shorter
        if self.loss.bootstraps:
            self._check_bootstrapping()
            if self.training.is_sharded:
                raise ConfigError(
                    f"training.strategy=fsdp2 does not go with training.objective="
                    f"{self.training.objective}, whose target networks are whole copies of the "
                    "model. Use training.strategy=ddp."
                )
        if self.data.window == "consecutive":
            check_consecutive(self)

    def _check_bootstrapping(self) -> None:
        """Check that every window holds the step after each step, and no future return.

        Raises:
            ConfigError: If another setting is in the way.
        """
        objective = f"training.objective={self.training.objective}"
        if self.model.condition_on_return:
            raise ConfigError(
                f"{objective} learns what return to expect, and model.condition_on_return=true "
                "tells the model the return of the data. Set model.condition_on_return=false."
            )
        if self.training.bptt_segments == 0 or self.data.window == "consecutive":
            cut = "training.bptt_segments=0 trains on segments one by one"
            if self.data.window == "consecutive":
                cut = "data.window=consecutive trains on windows one by one"
            raise ConfigError(
                f"{objective} bootstraps from the step after, and {cut}, whose last step has none. "
                "Set training.bptt_segments=1 or data.window=random."
            )

    @property
    def is_online(self) -> bool:
        """Whether batches come from the environment."""
        return self.data.source == ONLINE

    @property
    def graph_obstacle(self) -> str | None:
        """The setting that prevents CUDA graphs of a step; None if none does."""
        if self.data.window == "consecutive":
            return "data.window=consecutive"
        if self.is_online and self.online.priority_exponent:
            return "online.priority_exponent"  # each step tells the replay its errors
        return self.training.graph_obstacle

    @property
    def window(self) -> int:
        """Steps of a training window, K * N."""
        return self.model.context_length * self.training.segments

    @property
    def max_length(self) -> int:
        """Environment length for the generated data."""
        return self.data.max_length or self.window

    @property
    def trained_length(self) -> int | None:
        """The maximum length of the generated data; None if the data come from a store."""
        return None if self.data.store else self.max_length

    @property
    def label(self) -> str:
        """The model part of the folder name: `logging.name`, or the task, if any, and the model."""
        task = self.data.dataset or self.env.get("task") or str(self.env.get("game", "")).lower()
        task = _SLASHES.sub("-", str(task))
        return self.logging.name or "-".join(filter(None, (task, self.name)))

    @property
    def run_name(self) -> str:
        """The folder name, `environment-label-seed`; the data's name if there is no environment."""
        what = self.environment
        if what == NO_ENVIRONMENT and self.data.store is not None:
            what = Path(self.data.store).name
        return f"{_SLASHES.sub('-', what)}-{self.label}-{self.training.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as nested plain types that YAML can store."""
        return asdict(self)
