"""TD3 with behaviour cloning (Fujimoto and Gu 2021, "A Minimalist Approach to Offline RL").

- Values: `L_Q = (Q_i(h_t, a_t) - G_t)^2` for two networks, where `G_t` bootstraps from
  `min Q'_i(h', pi'(h') + noise)`.
- Policy: `L_pi = -lambda Q_1(h_t, pi(h_t)) + (pi(h_t) - a_t)^2`, with
  `lambda = alpha / mean |Q_1|`, every `loss.policy_delay` optimiser steps.

Actions are in half their range. The model's head is the policy. Gradients of the policy's loss
reach the features through the policy alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate.batch import Batch
from rate.model import SequenceModel
from trainers.config_values import TD3BCConfig
from trainers.objectives.base import LossSums, Problem
from trainers.objectives.critics import TwinCritic, frozen
from trainers.objectives.steps import accuracies
from trainers.objectives.targets import has_target
from trainers.objectives.values import ValueObjective, value_metrics


class TD3BC(ValueObjective[TD3BCConfig]):
    """TD3 with behaviour cloning of bounded continuous actions."""

    settings = TD3BCConfig
    moves: Tensor

    def __init__(self, settings: TD3BCConfig, problem: Problem) -> None:
        model = problem.model
        critic = TwinCritic(model.config.d_model, model.head.encoded_size, settings.critic_width)
        super().__init__(settings, problem, {"critic": critic})
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        known, head, critic = has_target(batch), model.head, self.heads["critic"]
        both = critic(features, head.encode(batch.actions))  # (2, B, T)
        goals = self._targets(batch)  # (B, T)
        predictions = head(features)  # (B, T, A)
        acted = frozen(critic)(features.detach(), head.encode(predictions))[0]  # (B, T)
        mean = acted.detach().abs().masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)
        scale = self.config.value_weight / mean.clamp(min=1e-6)
        now = (self.moves % self.config.policy_delay == 0).float()
        policy = head.loss(predictions, batch.actions) - scale * acted
        losses = {"td": (both - goals).square().sum(0), "policy": now * policy}
        with torch.no_grad():
            metrics = value_metrics(batch, both.amin(0), both.mean(0) - goals, known)
            metrics |= accuracies(head, predictions, batch)
        return LossSums.of_steps(losses, known.float(), known, metrics)

    @torch.no_grad()
    def _targets(self, batch: Batch) -> Tensor:
        target, config = self.target, self.config
        features = target.features(batch)
        actions = target.model.head.encode(target.model.head(features))  # (B, T, A)
        noise = (config.policy_noise * torch.randn_like(actions)).clamp(
            -config.noise_clip, config.noise_clip
        )
        smoothed = (actions + noise).clamp(-1, 1)
        return self.goals(batch, target.heads["critic"](features, smoothed).amin(0))

    @torch.no_grad()
    def after_step(self, model: SequenceModel) -> None:
        super().after_step(model)
        self.moves += 1
