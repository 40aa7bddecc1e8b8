"""Conservative Q-learning of continuous actions (Kumar et al. 2020; soft actor-critic's policy).

- Values: `L_Q = (Q_i(h_t, a_t) - G_t)^2 + w (log sum_a exp Q_i(h_t, a) - Q_i(h_t, a_t))` for two
  networks. `G_t` bootstraps from `min Q'_i(h', a')` with `a'` of the policy. The sum over actions
  is estimated from uniform ones and from the policy's, each divided by its density (appendix F).
- Policy: a Gaussian squashed by tanh, `L_pi = temperature log pi(a | h_t) - min Q_i(h_t, a)`, whose
  temperature is learnt so that the entropy is minus the number of components (Haarnoja et al.
  2018). The model's head is its mean, and acts.

Actions are in half their range.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.batch import Batch
from rate.heads import ContinuousHead
from rate.model import SequenceModel
from trainers.config_learning import ObjectiveConfig
from trainers.config_values import CQLConfig
from trainers.objectives.base import LossSums, Problem
from trainers.objectives.critics import TwinCritic, frozen
from trainers.objectives.steps import accuracies
from trainers.objectives.targets import has_target
from trainers.objectives.values import ValueObjective, value_metrics

_LOG_STD = (-5.0, 2.0)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Returns actions in (-1, 1), `(..., A)`, and the logarithms of their densities, `(...)`.

    Args:
        mean: `(..., A)`, before tanh.
        log_std: `(..., A)`.
        noise: `(..., A)`, of a standard normal distribution.
    """
    raw = mean + log_std.exp() * noise
    normal = -0.5 * noise.square() - log_std - _HALF_LOG_2PI
    # log(1 - tanh(x)^2), stable for large x
    squash = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return raw.tanh(), (normal - squash).sum(-1)


class ContinuousCQL(ValueObjective[CQLConfig]):
    """Conservative Q-learning of bounded continuous actions."""

    settings = CQLConfig

    def __init__(self, settings: ObjectiveConfig, problem: Problem) -> None:
        model, width = problem.model, cast("CQLConfig", settings).critic_width
        d_model, actions = model.config.d_model, model.head.encoded_size
        heads = {
            "critic": TwinCritic(d_model, actions, width),
            "log_std": nn.Linear(d_model, actions),
        }
        super().__init__(settings, problem, heads)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.num_actions = actions

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        head = cast("ContinuousHead", model.head)
        known, critic = has_target(batch), self.heads["critic"]
        both = critic(features, head.encode(batch.actions))  # (2, B, T)
        acted, density = self._sample(head, features)  # (B, T, A), (B, T)
        with torch.no_grad():
            later = self.target.features(batch)
            goals = self.goals(batch, self.target.heads["critic"](later, acted).amin(0))
            temperature = self.log_temperature.exp()
        gap = self._all_values(head, features) - both  # (2, B, T)
        least = frozen(critic)(features.detach(), acted).amin(0)  # (B, T)
        entropy_gap = (density - self.num_actions).detach()
        losses = {
            "td": (both - goals).square().sum(0),
            "conservative": self.config.conservative_weight * gap.sum(0),
            "policy": temperature * density - least,
            "temperature": -self.log_temperature * entropy_gap,
        }
        with torch.no_grad():
            metrics = value_metrics(batch, both.amin(0), both.mean(0) - goals, known)
            means = {"conservative_gap": gap.mean(0), "entropy": -density}
            for name, part in means.items():
                total = part.masked_fill(~batch.mask, 0.0).sum()
                metrics[name] = (total, batch.mask.sum())
            metrics |= accuracies(head, head(features), batch)
        return LossSums.of_steps(losses, known.float(), known, metrics)

    def _sample(self, head: ContinuousHead, features: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
        """Returns actions of the policy, `(*shape, B, T, A)`, and their log densities."""
        mean = head.linear(features).float()
        log_std = self.heads["log_std"](features).float().clamp(*_LOG_STD)
        noise = torch.randn(*shape, *mean.shape, device=mean.device)
        return squashed_sample(mean, log_std, noise)

    def _all_values(self, head: ContinuousHead, features: Tensor) -> Tensor:
        """Returns an estimate of `log sum_a exp Q(h_t, a)` for both networks, `(2, B, T)`."""
        count = self.config.num_samples
        with torch.no_grad():
            acted, density = self._sample(head, features, count)  # (S, B, T, A), (S, B, T)
            uniform = torch.rand_like(acted) * 2 - 1
            actions = torch.cat((uniform, acted))  # (2 S, B, T, A)
            flat = torch.full_like(density, -math.log(2) * self.num_actions)
            densities = torch.cat((flat, density))  # (2 S, B, T)
        values = self.heads["critic"](features.expand(2 * count, *features.shape), actions)
        return torch.logsumexp(values - densities, dim=1) - math.log(2 * count)
