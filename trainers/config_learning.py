"""Settings of the optimiser, the loss and the curriculum, validated."""

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
ActionKind = Literal["discrete", "multi-discrete", "continuous", "unbounded"]
BEHAVIOUR_CLONING = "behaviour_cloning"


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
