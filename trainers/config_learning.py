"""Settings of the training loop, the optimiser, the loss and the curriculum, validated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym

from rate.errors import ConfigError
from rate.spaces import choices_of
from trainers.checks import at_least, choice

Schedule = Literal["constant", "linear", "cosine"]
WeightedSteps = Literal["none", "last", "rewarded", "keyframes"]
DataDevice = Literal["auto", "host", "device"]
_Ddp = Literal["ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"]
Strategy = Literal["auto", "single_device", _Ddp]
WhenMissing = Literal["refuse", "fresh"]
When = Literal["never", "auto", "always"]  # YAML takes "on" and "off" for booleans
ActionKind = Literal["discrete", "multi-discrete", "continuous", "unbounded"]
BEHAVIOUR_CLONING = "behaviour_cloning"


@dataclass(frozen=True)
class TrainingConfig:
    """The optimisation loop and the hardware it runs on.

    Attributes:
        objective: The learning rule: `behaviour_cloning`; `cql`, `iql`, `ddqn`, `r2d2`,
            `sac_discrete` or `td3_bc`, which learn values from rewards; `a2c` or `vtrace`, online
            alone; or the import path of your own, `module:Attribute`. Its settings are the section
            `loss`.
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
        """The setting that prevents the recording of a step as a CUDA graph; None if none does."""
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
class OptimizerConfig:
    """AdamW and its schedule, counted in optimiser steps.

    Attributes:
        learning_rate: The peak, reached after warm-up.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        weight_decay: Applied to matrices alone; biases, norms, embeddings and memory tokens are
            in a group without decay.
        warmup_steps: Steps of linear warm-up.
        schedule: What follows the warm-up.
        final_fraction: Where the schedule ends, as a fraction of the peak.
        gradient_clip: Largest norm of the gradient; 0 does not clip.
    """

    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.95
    weight_decay: float = 0.01
    warmup_steps: int = 20
    schedule: Schedule = "cosine"
    final_fraction: float = 0.1
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        choice("optimizer.schedule", self.schedule, Schedule)
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"optimizer.learning_rate is {self.learning_rate}; it must be finite and above 0."
            )
        for name in ("weight_decay", "warmup_steps", "gradient_clip", "final_fraction"):
            at_least(f"optimizer.{name}", getattr(self, name), 0)
        if self.final_fraction > 1:
            raise ConfigError(
                f"optimizer.final_fraction is {self.final_fraction}; above 1 the learning rate "
                "would rise after its peak. Use [0, 1]."
            )
        for name in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"optimizer.{name} is {getattr(self, name)}; it must be in [0, 1)."
                )


@dataclass(frozen=True)
class ObjectiveConfig:
    """The settings of a learning rule (`loss.*`); this one has none."""

    bootstraps: ClassVar[bool] = False
    """Whether values are learnt from rewards by bootstrapping. Batches then have the observations
    that follow truncated episodes, `Batch.following`, and the model is not given returns-to-go."""

    actions: ClassVar[tuple[ActionKind, ...]] = get_args(ActionKind)
    """The kinds of actions that it learns."""

    sources: ClassVar[tuple[str, ...]] = ("offline",)  # where batches may come from, `data.source`
    on_policy: ClassVar[bool] = False  # learns from the unrolls of its own policy: no replay
    corrects_for_lag: ClassVar[bool] = False  # for actions of an earlier policy, `Batch.behaviour`
    acts_by_values: ClassVar[bool] = False  # the head predicts values of discrete actions

    @property
    def wants_privileged_state(self) -> bool:
        """Whether batches must contain the privileged state, `Batch.privileged`."""
        return False

    def check_window(self, steps: int) -> None:
        """Check that a training window has as many steps as the settings need.

        Raises:
            ConfigError: If it is too short.
        """

    def check_actions(self, objective: str, space: gym.Space[Any]) -> None:
        """Check that the rule learns actions of a space.

        Raises:
            ConfigError: If it does not; the message names rules that do.
        """
        kind = action_kind(space)
        if kind not in self.actions:
            raise ConfigError(
                f"training.objective={objective} learns {' and '.join(self.actions)} actions, and "
                f"those of the environment are {kind}: {space}. Choose another objective: cql and "
                "iql learn discrete and continuous actions, ddqn, r2d2, sac_discrete, a2c and "
                "vtrace discrete ones, td3_bc continuous ones, iql and behaviour_cloning all."
            )


def action_kind(space: gym.Space[Any]) -> ActionKind:
    """Returns the kind of an action space; `continuous` has bounds on both sides."""
    choices = choices_of(space)
    if choices is not None:
        return "multi-discrete" if choices.shape else "discrete"
    bounded = isinstance(space, gym.spaces.Box) and space.is_bounded()
    return "continuous" if bounded else "unbounded"


@dataclass(frozen=True)
class LossConfig(ObjectiveConfig):
    """The loss of behaviour cloning, a weighted mean over real steps.

    Attributes:
        label_smoothing: Of the cross-entropy of discrete actions.
        weighted_steps: Steps with a larger weight in the loss: the `last` steps of an episode,
            those that were `rewarded` (the reward is not 0), or `keyframes`, at which the action
            differs from the one before (Wen et al. 2021): a model that repeats its last action is
            wrong there.
        last_steps: How many steps at the end of an episode are its last steps. The metric
            `last_step_accuracy` is over them.
        step_weight: Weight of such a step; that of any other is 1.
        auxiliary_state_weight: Weight of the auxiliary state loss, in training only: the
            privileged state (`privileged` in the data) is predicted at every step from the
            features that predict the action. It teaches a memory what to keep where actions alone
            take far longer (asymmetric training; Pinto et al. 2017). It is never an input; 0 turns
            it off.
        auxiliary_state_parts: How many parts of the privileged state are predicted, from the first
            on; None is all. What moves all the time drowns what is to be remembered.
    """

    label_smoothing: float = 0.0
    weighted_steps: WeightedSteps = "none"
    last_steps: int = 1
    step_weight: float = 10.0
    auxiliary_state_weight: float = 0.0
    auxiliary_state_parts: int | None = None

    def __post_init__(self) -> None:
        at_least("loss.auxiliary_state_weight", self.auxiliary_state_weight, 0)
        if self.auxiliary_state_parts is not None:
            at_least("loss.auxiliary_state_parts", self.auxiliary_state_parts, 1)
        choice("loss.weighted_steps", self.weighted_steps, WeightedSteps)
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"loss.label_smoothing is {self.label_smoothing}; use [0, 1).")
        at_least("loss.last_steps", self.last_steps, 1)
        at_least("loss.step_weight", self.step_weight, 0)

    @property
    def wants_privileged_state(self) -> bool:
        return self.auxiliary_state_weight > 0


@dataclass(frozen=True)
class CurriculumConfig:
    """Growth of the number of segments from 1 to `training.segments`.

    A stage trains on episodes that fit into its segments. It ends when the mean accuracy at the
    ends of episodes reaches `threshold`, and after `max_steps` at the latest.

    Attributes:
        enabled: Whether there is a curriculum (`--curr`).
        threshold: Mean accuracy at episode ends that ends a stage.
        window: Batches the mean is taken over.
        max_steps: Longest stage in optimiser steps; None has no limit.
    """

    enabled: bool = False
    threshold: float = 0.99
    window: int = 5
    max_steps: int | None = None

    def __post_init__(self) -> None:
        at_least("curriculum.window", self.window, 1)
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"curriculum.threshold is {self.threshold}; it must be in (0, 1].")
        if self.max_steps is not None:
            at_least("curriculum.max_steps", self.max_steps, 1)
