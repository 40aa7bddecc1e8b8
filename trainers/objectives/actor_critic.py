"""The base of learning rules of an actor and a critic that learn from their own unrolls.

`L = -log pi(a_t | h_t) A_t + w_v 1/2 (G_t - V(h_t))^2 - w_e H(pi(. | h_t))`, where a rule defines
the targets `G` and the advantages `A`, neither of which has a gradient. The model's head is the
policy; the values have a network of their own on the same features.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.heads import DiscreteHead
from rate.model import SequenceModel
from trainers.config_learning import ObjectiveConfig
from trainers.config_values import ActorCriticConfig
from trainers.objectives.base import LossSums, Objective, Problem, Sum
from trainers.objectives.critics import StateValue
from trainers.objectives.targets import has_target
from trainers.objectives.values import value_metrics

C = TypeVar("C", bound=ActorCriticConfig)


class ActorCritic(Objective, Generic[C]):
    """An actor and a critic on shared features.

    Attributes:
        config: The settings.
        heads: The value network, which does not leave with the model.
    """

    settings = ActorCriticConfig

    def __init__(self, settings: ObjectiveConfig, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.config = cast("C", settings)
        value = StateValue(problem.model.config.d_model, self.config.critic_width)
        self.heads = nn.ModuleDict({"value": value})

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        head: DiscreteHead = model.head  # type: ignore[assignment]
        known, config = has_target(batch), self.config
        values: Tensor = self.heads["value"](features)  # (B, T)
        log_policy = head(features).float().log_softmax(-1)  # (B, T, A)
        index = head.indices(batch.actions)[..., None]
        chosen = log_policy.gather(-1, index)[..., 0]  # (B, T)
        entropy = -(log_policy.exp() * log_policy).sum(-1)
        with torch.no_grad():
            goals, advantages, metrics = self.estimates(batch, values.detach(), chosen.detach())
        losses = {
            "policy": -chosen * advantages,
            "value": config.value_weight * 0.5 * (goals - values).square(),
            "entropy": -config.entropy_weight * entropy,
        }
        with torch.no_grad():
            metrics |= value_metrics(batch, values, values - goals, known)
            metrics["entropy"] = (entropy.masked_fill(~known, 0.0).sum(), known.sum())
        return LossSums.of_steps(losses, known.float(), known, metrics)

    def estimates(
        self, batch: Batch, values: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Sum]]:
        """Returns the targets and the advantages of all steps, `(B, T)` each, and metrics.

        Args:
            batch: The steps.
            values: `(B, T)`, the values of the observations.
            chosen: `(B, T)`, the log-probabilities of the actions.
        """
        raise NotImplementedError

    def rewards(self, batch: Batch) -> Tensor:
        """Returns the rewards `(B, T)`, clipped if the settings say so."""
        limit = self.config.reward_clip
        return batch.rewards.clamp(-limit, limit) if limit else batch.rewards
