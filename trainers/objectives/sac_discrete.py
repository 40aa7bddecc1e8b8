"""Soft actor-critic with discrete actions and shared features (Christodoulou 2019; Ni et al. 2023).

- Values: `L_Q = (Q_i(h_t, a_t) - G_t)^2` for two networks, where `G_t` bootstraps from
  `V = sum_a pi(a | h) (min Q'_i(h', a) - alpha log pi(a | h))`.
- Policy: `L_pi = sum_a pi(a | h_t) (alpha log pi(a | h_t) - min Q_i(h_t, a))`.

The model's head is the policy. On recorded data nothing keeps the values of unseen actions down:
`cql` does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate.batch import Batch
from rate.heads import DiscreteHead
from rate.model import SequenceModel
from trainers.config_values import SACDiscreteConfig
from trainers.objectives.base import LossSums, Problem
from trainers.objectives.critics import TwinCritic
from trainers.objectives.steps import accuracies
from trainers.objectives.targets import has_target
from trainers.objectives.values import ValueObjective, value_metrics


class SACDiscrete(ValueObjective[SACDiscreteConfig]):
    """Soft actor-critic of discrete actions with a fixed temperature."""

    settings = SACDiscreteConfig

    def __init__(self, settings: SACDiscreteConfig, problem: Problem) -> None:
        model = problem.model
        outputs = model.head.encoded_size
        critic = TwinCritic(model.config.d_model, 0, settings.critic_width, outputs)
        super().__init__(settings, problem, {"critic": critic})

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        head: DiscreteHead = model.head  # type: ignore[assignment]
        known, alpha = has_target(batch), self.config.entropy_weight
        both = self.heads["critic"](features)  # (2, B, T, A)
        index = head.indices(batch.actions)[None, ..., None].expand(2, -1, -1, 1)
        chosen = both.gather(-1, index)[..., 0]  # (2, B, T)
        logits = head(features).float()
        log_policy = logits.log_softmax(-1)  # (B, T, A)
        policy = log_policy.exp()
        with torch.no_grad():
            later = self.target.heads["critic"](self.target.features(batch)).amin(0)
            goals = self.goals(batch, (policy * (later - alpha * log_policy)).sum(-1))  # (B, T)
        least = both.amin(0)
        if self.config.freeze_critic:
            least = least.detach()
        losses = {
            "td": 0.5 * (chosen - goals).square().sum(0),
            "policy": (policy * (alpha * log_policy - least)).sum(-1),
        }
        with torch.no_grad():
            metrics = value_metrics(batch, chosen.amin(0), chosen.mean(0) - goals, known)
            entropy = -(policy * log_policy).sum(-1).masked_fill(~batch.mask, 0.0)
            metrics["entropy"] = (entropy.sum(), batch.mask.sum())
            metrics |= accuracies(head, logits, batch)
        return LossSums.of_steps(losses, known.float(), known, metrics)
