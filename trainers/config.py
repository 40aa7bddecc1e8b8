"""Everything a run is made of, as one typed, validated value that fits in a YAML file."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from datamodules.readers.roles import read_map
from rate.architecture import make_config
from rate.config import Decoding, ModelConfig
from rate.errors import ConfigError
from trainers.checks import all_finite, at_least, choice, episode_seeds
from trainers.config_learning import (
    CurriculumConfig,
    LossConfig,
    ObjectiveConfig,
    OptimizerConfig,
)
from trainers.objectives import DEFAULT as BEHAVIOUR_CLONING

_SLASHES = re.compile(r"[/\\:]+")  # what a folder's name cannot hold
Window = Literal["start", "random"]
Sampling = Literal["episodes", "steps"]
Unfinished = Literal["keep", "drop"]
DataDevice = Literal["auto", "host", "device"]
_Ddp = Literal["ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"]
Strategy = Literal["auto", "single_device", _Ddp]
WhenMissing = Literal["refuse", "fresh"]
Resume = Path | Literal["auto"] | None  # what to continue: a folder, or the run of that name
NO_ENVIRONMENT = "none"  # the environment of a run on data alone
When = Literal["never", "auto", "always"]  # YAML takes "on" and "off" for booleans


@dataclass(frozen=True)
class ReadingConfig:
    """What data of other formats do not tell of themselves; a store tells all of it.

    Attributes:
        columns: Which of their columns is what, `{theirs: ours}` (`--map THEIRS=OURS`): ours are
            observations, actions, rewards, terminated, truncated, dones, is_first, is_last,
            episode, lengths and none.
        time_limit: After how many steps the environment of the data ends an episode, where no
            column tells it.
        unfinished: What becomes of steps after the last end. None keeps them as a truncated
            episode, but for D4RL's files, whose published readers drop them.
        zero_rewards: Take data without rewards, as if all were 0.
        action_range: The bounds of continuous actions, `[low, high]`; None is the environment's,
            or the data's own.
        keep_actions: Keep actions that are outside of the bounds, instead of clipping them.
        skip_bad: Leave out episodes that are not valid.
        format: The name of the data's format, or the import path of your own, `module:FORMAT`,
            where it is not to be recognised.
    """

    columns: dict[str, str] = field(default_factory=dict)
    time_limit: int | None = None
    unfinished: Unfinished | None = None
    zero_rewards: bool = False
    action_range: list[float] | None = None
    keep_actions: bool = False
    skip_bad: bool = False
    format: str | None = None

    def __post_init__(self) -> None:
        if self.unfinished is not None:
            choice("data.reading.unfinished", self.unfinished, Unfinished)
        if self.time_limit is not None:
            at_least("data.reading.time_limit", self.time_limit, 1)
        for theirs, ours in self.columns.items():
            try:
                read_map(f"{theirs}={ours}")
            except ValueError as error:
                raise ConfigError(f"data.reading.columns: {error}.") from None
        bounds = self.action_range
        if bounds is not None and (len(bounds) != 2 or not bounds[0] < bounds[1]):
            raise ConfigError(
                f"data.reading.action_range is {bounds}; it must be the lower bound and the upper."
            )


@dataclass(frozen=True)
class DataConfig:
    """Where trajectories come from and how windows are cut from them.

    Attributes:
        root: Folder of data sets. Generated ones are made here at first use.
        store: What to train on (`--data`): a packed store, a file or folder of any other format,
            of which a store is made at first use, or the name of a public data set that is here.
            None generates the environment's own.
        reading: What data of other formats do not tell.
        dataset: Which data set, where an environment has several. Those of mujoco are D4RL's
            (`hopper-medium-v2`), Minari's (`mujoco/hopper/medium-v0`) and our own
            (`hopper-medium-sac`); `--dataset` sets the task as well.
        max_length: Length of the environment that data are generated in (see
            `evaluation.lengths`): the longest episode; for minigrid the largest grid. None is
            K * N.
        num_episodes: Episodes to generate.
        seed: Seed of the generation.
        noise: How noisy the expert is: the share of steps at which it begins to act at random.
        random_policy: Let a random policy make the data where an environment has no expert (atari
            but for Pong): poor data, to be asked for by name.
        agent_steps: Steps that an agent learns for before it generates (mujoco); None is the
            environment's own choice.
        workers: Processes that generate; None is one per core. 1 generates in this process, where
            nothing ends a simulator that hangs.
        min_return: Train only on episodes with at least this return.
        min_length: Train only on episodes of at least so many steps.
        normalise: Normalise vectors in observations by the data's mean and standard deviation (at
            least 0.001; a component that never varies is centred alone); the weights carry both.
        window: Cut windows from the `start` of episodes, or at `random` places, so that every step
            of an episode is equally likely to be drawn.
        sampling: Draw all `episodes` equally often, or so that all `steps` are, in proportion to
            the episodes' lengths, as published Decision Transformers do.
        frame_stack: Frames of an image environment that make one observation. Data keep single
            frames, and so does a batch on its way to the device.
        held_out: Share of the episodes that no model is trained on, and on which its predictions
            are measured, in [0, 1). Which ones depends on their numbers in the data alone.
    """

    root: str = "data"
    store: str | None = None
    dataset: str | None = None
    max_length: int | None = None
    num_episodes: int = 2000
    seed: int = 0
    noise: float = 0.0
    random_policy: bool = False
    agent_steps: int | None = None
    workers: int | None = None
    min_return: float | None = None
    min_length: int | None = None
    normalise: bool = False
    window: Window = "start"
    sampling: Sampling = "episodes"
    frame_stack: int = 1
    held_out: float = 0.05
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        choice("data.window", self.window, Window)
        choice("data.sampling", self.sampling, Sampling)
        at_least("data.frame_stack", self.frame_stack, 1)
        at_least("data.num_episodes", self.num_episodes, 2)
        if not 0 <= self.seed < 2**20:
            raise ConfigError(f"data.seed is {self.seed}; it must be in [0, {2**20}).")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"data.held_out is {self.held_out}; it must be in [0, 1).")
        if not 0 <= self.noise <= 1:
            raise ConfigError(f"data.noise is {self.noise}; it must be in [0, 1].")
        for name in ("workers", "min_length", "agent_steps"):
            if getattr(self, name) is not None:
                at_least(f"data.{name}", getattr(self, name), 1)
        if self.max_length is not None:
            at_least("data.max_length", self.max_length, 3)


@dataclass(frozen=True)
class TrainingConfig:
    """The optimisation loop and the hardware it runs on.

    Attributes:
        objective: The learning rule: `behaviour_cloning`, or the import path of your own,
            `module:Attribute`. Its settings are the section `loss`.
        segments: N, segments of K steps in a training window (`--sections`, `--max_n_final`).
        bptt_segments: Segments the gradient flows back through; None is all of them. 0 is the
            published detached recipe: memory is cut at every border and the optimiser steps once
            per segment.
        batch_size: Windows in a batch, over all devices.
        max_steps: Optimiser steps.
        seed: Seeds weights, batches, dropout and noise.
        accelerator: `cpu`, `gpu` or `auto`, as Lightning has it.
        devices: Number of devices; those of each node, where there are several.
        num_nodes: Number of machines, on each of which a launcher (`torchrun`, `srun`) starts us.
        strategy: Lightning's strategy: `auto`, `single_device`, or `ddp` for several devices.
            Others divide a model or start processes in ways that nothing here is made for.
        precision: Lightning's precision, for example `bf16-mixed`.
        threads: CPU threads of a process; None chooses.
        log_every_n_steps: Steps between two rows of metrics.
        checkpoint_every_n_steps: Steps between two checkpoints of the training state.
        checkpoint_segments: Compute each segment's activations again when its gradient is due, and
            keep nothing but its state: memory for long windows, at the price of a second forward.
        data_device: Where batches are gathered: from data that are on the `device`, or from the
            `host`'s files while the device computes. `auto` looks whether they fit.
        compile: Compile the model (`torch.compile`). `auto` does on a GPU, and does without where
            that fails.
        cuda_graphs: Record an optimiser step once and launch it as a whole. `auto` does on a GPU,
            unless another setting is in the way (see `graph_obstacle`), and does without where that
            fails or comes to something else than a plain step.
        init: Weights that a new run begins with (`--init`): the folder of a run or of a saved
            model, or a file of weights. Scales of observations and actions come with them; the
            optimiser, and the count of steps, begin anew.
        init_missing: What to do where those weights are not all that the model has, or have other
            shapes: `refuse`, or leave `fresh` what does not fit (`--init_missing`).
    """

    objective: str = BEHAVIOUR_CLONING
    segments: int = 3
    bptt_segments: int | None = None
    batch_size: int = 32
    max_steps: int = 500
    seed: int = 1
    accelerator: str = "cpu"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    log_every_n_steps: int = 10
    checkpoint_every_n_steps: int = 100
    checkpoint_segments: bool = False
    data_device: DataDevice = "auto"
    compile: When = "auto"
    cuda_graphs: When = "auto"
    init: str | None = None
    init_missing: WhenMissing = "refuse"

    def __post_init__(self) -> None:
        choice("training.strategy", self.strategy, Strategy)
        choice("training.data_device", self.data_device, DataDevice)
        choice("training.compile", self.compile, When)
        choice("training.cuda_graphs", self.cuda_graphs, When)
        choice("training.init_missing", self.init_missing, WhenMissing)
        names = ("segments", "batch_size", "max_steps", "devices", "num_nodes")
        for name in (*names, "log_every_n_steps", "checkpoint_every_n_steps"):
            at_least(f"training.{name}", getattr(self, name), 1)
        if self.bptt_segments is not None:
            at_least("training.bptt_segments", self.bptt_segments, 0)
        if self.threads is not None:
            at_least("training.threads", self.threads, 1)
        if self.batch_size % (self.devices * self.num_nodes):
            nodes = f" x training.num_nodes={self.num_nodes}" if self.num_nodes > 1 else ""
            raise ConfigError(
                f"training.batch_size={self.batch_size} is over all devices and must be a "
                f"multiple of training.devices={self.devices}{nodes}."
            )
        if self.cuda_graphs == "always" and self.graph_obstacle:
            raise ConfigError(
                f"training.cuda_graphs=always does not go with {self.graph_obstacle}. Set "
                "training.cuda_graphs=auto, or change that."
            )

    @property
    def graph_obstacle(self) -> str | None:
        """The setting that a step cannot be recorded with, if there is one."""
        return next(
            (
                f"training.{setting}"
                for setting, in_the_way in {
                    "accelerator=cpu": self.accelerator == "cpu",
                    f"devices={self.devices}": self.devices > 1,  # they wait for each other
                    f"num_nodes={self.num_nodes}": self.num_nodes > 1,
                    "bptt_segments=0": self.bptt_segments == 0,  # several steps in a batch
                    "checkpoint_segments=true": self.checkpoint_segments,  # reads the generator
                    f"precision={self.precision}": self.precision.startswith("16"),  # rescaled
                }.items()
                if in_the_way
            ),
            None,
        )


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
    recompute_window: bool = True
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
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

    @property
    def window(self) -> int:
        """Steps of a training window, K * N."""
        return self.model.context_length * self.training.segments

    @property
    def max_length(self) -> int:
        """Length of the environment that data are generated in."""
        return self.data.max_length or self.window

    @property
    def trained_length(self) -> int | None:
        """The greatest length of the data; None where they are a store's, which says it itself."""
        return None if self.data.store else self.max_length

    @property
    def label(self) -> str:
        """The model in the folder's name: `logging.name`, or the task, if any, and the model."""
        task = self.data.dataset or self.env.get("task") or str(self.env.get("game", "")).lower()
        task = _SLASHES.sub("-", str(task))
        return self.logging.name or "-".join(filter(None, (task, self.name)))

    @property
    def run_name(self) -> str:
        """The run's folder, `environment-label-seed`; without an environment the data's name."""
        what = self.environment
        if what == NO_ENVIRONMENT and self.data.store is not None:
            what = Path(self.data.store).name
        return f"{_SLASHES.sub('-', what)}-{self.label}-{self.training.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain YAML types."""
        return asdict(self)
