"""Implicit Q-learning (Kostrikov et al. 2022, "Offline RL with Implicit Q-Learning").

- Value of a state: `L_V = |tau - 1[u < 0]| u^2` with `u = min Q'(h'_t, a_t) - V(h_t)` (equation 5).
- Value of an action: `L_Q = (Q(h_t, a_t) - G_t)^2`, where `G_t` bootstraps from `V` (equation 6).
- Policy: imitation of the data's actions with weights `min(exp(beta u), 100)` (equation 7).

No action that the data do not show is ever valued. The model's head is the policy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate.batch import Batch
from rate.heads import DiscreteHead
from rate.model import SequenceModel
from trainers.config_values import IQLConfig
from trainers.objectives.base import LossSums, Problem
from trainers.objectives.critics import StateValue, TwinCritic
from trainers.objectives.steps import accuracies
from trainers.objectives.targets import has_target
from trainers.objectives.values import ValueObjective, value_metrics


class IQL(ValueObjective[IQLConfig]):
    """Implicit Q-learning of any actions."""

    settings = IQLConfig

    def __init__(self, settings: IQLConfig, problem: Problem) -> None:
        model, width = problem.model, settings.critic_width
        d_model, actions = model.config.d_model, model.head.encoded_size
        # The value of every discrete action at once: it is learnt far sooner than from an input.
        at_once = isinstance(model.head, DiscreteHead)
        sizes = (0, width, actions) if at_once else (actions, width)
        heads = {
            "critic": TwinCritic(d_model, *sizes),
            "value": StateValue(d_model, width),
        }
        super().__init__(settings, problem, heads)

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        config, known = self.config, has_target(batch)
        actions = model.head.encode(batch.actions)  # (B, T, A)
        values = self.heads["value"](features)  # (B, T)
        both = self.heads["critic"](features, actions)  # (2, B, T)
        with torch.no_grad():
            critic = self.target.heads["critic"]
            least = critic(self.target.features(batch), actions).amin(0)  # (B, T)
            goals = self.goals(batch, values.detach())
            advantages = least - values
            weights = (config.temperature * advantages).exp().clamp(max=config.most_weight)
        gap = least - values  # with a gradient in V alone
        asymmetric = torch.where(gap < 0, 1 - config.expectile, config.expectile)
        predictions = model.head(features)
        losses = {
            "td": (both - goals).square().sum(0),
            "value": asymmetric * gap.square(),
            "policy": config.policy_weight * weights * model.head.loss(predictions, batch.actions),
        }
        with torch.no_grad():
            metrics = value_metrics(batch, both.amin(0), both.mean(0) - goals, known)
            real = batch.mask
            metrics["advantage"] = (advantages.masked_fill(~real, 0.0).sum(), real.sum())
            metrics |= accuracies(model.head, predictions, batch)
        return LossSums.of_steps(losses, known.float(), known, metrics)
