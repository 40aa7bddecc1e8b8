"""Settings of the learning rules that learn values from rewards, validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym

from rate.errors import ConfigError
from trainers.checks import at_least
from trainers.config_learning import ActionKind, ObjectiveConfig, action_kind


@dataclass(frozen=True)
class ValueConfig(ObjectiveConfig):
    """The settings that all rules with values share.

    Attributes:
        discount: Of the value of the next step, in [0, 1].
        n_step: Rewards that a target sums before it bootstraps; at the end of a window fewer.
        target_rate: The share by which the target network moves towards the model after every
            optimiser step (Polyak averaging); 1 has no target network of its own.
        critic_width: Width of the two hidden layers of value networks besides the model's head.
    """

    bootstraps: ClassVar[bool] = True
    sources: ClassVar[tuple[str, ...]] = ("offline", "online")

    discount: float = 0.99
    n_step: int = 1
    target_rate: float = 0.005
    critic_width: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"loss.discount is {self.discount}; it must be in [0, 1].")
        if not 0 < self.target_rate <= 1:
            raise ConfigError(f"loss.target_rate is {self.target_rate}; it must be in (0, 1].")
        at_least("loss.n_step", self.n_step, 1)
        at_least("loss.critic_width", self.critic_width, 1)

    def check_window(self, steps: int) -> None:
        if self.n_step >= steps:
            raise ConfigError(
                f"loss.n_step={self.n_step} is longer than a training window of {steps} steps "
                "allows; lower it, or train on longer windows (training.segments)."
            )


@dataclass(frozen=True)
class QLearningConfig(ValueConfig):
    """The settings of Q-learning: the model's head predicts the value of every action.

    Attributes:
        dueling: Whether a value of the state is added to the head's predictions, which are then
            advantages (Wang et al. 2016).
        rescale_values: Whether networks predict values on the scale of R2D2, which lets large
            rewards be learnt without clipping (Pohlen et al. 2018).
        burn_in: Steps at the start of a window whose errors do not count, unless it begins an
            episode: they only warm the memory up (Kapturowski et al. 2019).
    """

    actions: ClassVar[tuple[ActionKind, ...]] = ("discrete",)
    acts_by_values: ClassVar[bool] = True

    dueling: bool = False
    rescale_values: bool = False
    burn_in: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("loss.burn_in", self.burn_in, 0)

    def check_window(self, steps: int) -> None:
        super().check_window(steps)
        if self.burn_in >= steps:
            raise ConfigError(
                f"loss.burn_in={self.burn_in} leaves nothing of a training window of {steps} "
                "steps; lower it, or train on longer windows (training.segments)."
            )


@dataclass(frozen=True)
class R2D2Config(QLearningConfig):
    """The settings of R2D2's learner: those of Q-learning with its values."""

    discount: float = 0.997
    n_step: int = 5
    target_rate: float = 0.001
    dueling: bool = True
    rescale_values: bool = True


@dataclass(frozen=True)
class CQLConfig(QLearningConfig):
    """The settings of conservative Q-learning, besides those of Q-learning with discrete actions.

    Attributes:
        conservative_weight: Weight of the gap between the values of all actions and those of the
            data, which the loss closes.
        num_samples: Actions that stand for all, of each kind, with continuous actions.
    """

    actions: ClassVar[tuple[ActionKind, ...]] = ("discrete", "continuous")

    conservative_weight: float = 1.0
    num_samples: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("loss.conservative_weight", self.conservative_weight, 0)
        at_least("loss.num_samples", self.num_samples, 1)

    def check_actions(self, objective: str, space: gym.Space[Any]) -> None:
        super().check_actions(objective, space)
        for name in ("dueling", "rescale_values", "burn_in"):
            if getattr(self, name) and action_kind(space) == "continuous":
                raise ConfigError(
                    f"loss.{name}={getattr(self, name)} is of discrete actions, and those of the "
                    f"environment are continuous: {space}. Leave it out."
                )


@dataclass(frozen=True)
class IQLConfig(ValueConfig):
    """The settings of implicit Q-learning.

    Attributes:
        expectile: Which expectile of the values of the data's actions is the value of a state, in
            (0, 1); 0.5 is their mean, and 1 would be their maximum.
        temperature: How much the advantage of an action weighs in its imitation; 0 clones all.
        most_weight: The largest weight of a step in the imitation.
        policy_weight: Weight of the policy's loss beside those of the values. All train the same
            features, and the imitation of random actions is mostly noise to them.
    """

    expectile: float = 0.7
    temperature: float = 3.0
    most_weight: float = 100.0
    policy_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1:
            raise ConfigError(f"loss.expectile is {self.expectile}; it must be in (0, 1).")
        for name in ("temperature", "policy_weight"):
            at_least(f"loss.{name}", getattr(self, name), 0)
        at_least("loss.most_weight", self.most_weight, 1)


@dataclass(frozen=True)
class TD3BCConfig(ValueConfig):
    """The settings of TD3 with behaviour cloning.

    Attributes:
        value_weight: Weight of the value in the policy's loss, beside imitation's of 1, after
            values are divided by their mean absolute value (alpha in the paper).
        policy_noise: Standard deviation of the noise on the actions of targets, in half the range
            of an action.
        noise_clip: The largest such noise.
        policy_delay: Optimiser steps between two of the policy's.
    """

    actions: ClassVar[tuple[ActionKind, ...]] = ("continuous",)

    value_weight: float = 2.5
    policy_noise: float = 0.2
    noise_clip: float = 0.5
    policy_delay: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("value_weight", "policy_noise", "noise_clip"):
            at_least(f"loss.{name}", getattr(self, name), 0)
        at_least("loss.policy_delay", self.policy_delay, 1)


@dataclass(frozen=True)
class SACDiscreteConfig(ValueConfig):
    """The settings of soft actor-critic with discrete actions.

    Attributes:
        entropy_weight: Weight of the policy's entropy, a fixed temperature.
        freeze_critic: Whether the policy's loss does not train the values, nor the features through
            them (Ni et al. 2023 found training to be unstable otherwise).
    """

    actions: ClassVar[tuple[ActionKind, ...]] = ("discrete",)

    entropy_weight: float = 0.1
    freeze_critic: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("loss.entropy_weight", self.entropy_weight, 0)


@dataclass(frozen=True)
class ActorCriticConfig(ObjectiveConfig):
    """The settings that rules of an actor and a critic share, which learn from their own unrolls.

    Attributes:
        discount: Of the value of the next step, in [0, 1].
        value_weight: Weight of half the squared error of the values.
        entropy_weight: Weight of the policy's entropy, which keeps it from deciding too early.
        reward_clip: Rewards are clipped to plus and minus this; 0 does not clip.
        critic_width: Width of the two hidden layers of the value network.
    """

    bootstraps: ClassVar[bool] = True
    actions: ClassVar[tuple[ActionKind, ...]] = ("discrete",)
    sources: ClassVar[tuple[str, ...]] = ("online",)
    on_policy: ClassVar[bool] = True

    discount: float = 0.99
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    reward_clip: float = 0.0
    critic_width: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"loss.discount is {self.discount}; it must be in [0, 1].")
        for name in ("value_weight", "entropy_weight", "reward_clip"):
            at_least(f"loss.{name}", getattr(self, name), 0)
        at_least("loss.critic_width", self.critic_width, 1)


@dataclass(frozen=True)
class A2CConfig(ActorCriticConfig):
    """The settings of advantage actor-critic.

    Attributes:
        n_step: Rewards that a return sums before it bootstraps. None is the whole unroll: the
            Monte Carlo return, where an unroll holds the rest of the episode.
        normalise_returns: Whether the returns of each unroll are shifted and scaled to mean 0 and
            deviation 1, so that values are relative to the episode.
    """

    n_step: int | None = None
    normalise_returns: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_step is not None:
            at_least("loss.n_step", self.n_step, 1)


@dataclass(frozen=True)
class VTraceConfig(ActorCriticConfig):
    """The settings of V-trace.

    Attributes:
        rho_clip: The largest importance ratio of a step in its own error; it decides of which
            policy the values are.
        c_clip: The largest ratio by which an error is passed on to the steps before.
    """

    corrects_for_lag: ClassVar[bool] = True

    rho_clip: float = 1.0
    c_clip: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rho_clip", "c_clip"):
            at_least(f"loss.{name}", getattr(self, name), 0)
