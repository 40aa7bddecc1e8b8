"""V-trace, the actor-critic of IMPALA (Espeholt et al. 2018, sections 4.1 and 4.2).

With `rho_t = min(rho_clip, pi / mu)`, `c_t = min(c_clip, pi / mu)` and `mu` the policy that acted:

- `v_t = V_t + delta_t + γ c_t (v_{t+1} - V_{t+1})`, `delta_t = rho_t (r_t + γ V_{t+1} - V_t)`
  (equation 1, remark 1); these are the targets of the values.
- `A_t = rho_t (r_t + γ v_{t+1} - V_t)`, the advantages.

Nothing follows a terminated step: an episode's last step has no `V_{t+1}`, and the steps after it
are padding. An unroll that ends in the middle of an episode bootstraps from the observation that
follows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rate.batch import Batch
from trainers.config_values import VTraceConfig
from trainers.objectives.actor_critic import ActorCritic
from trainers.objectives.base import Sum
from trainers.objectives.targets import has_next, has_target


class VTrace(ActorCritic[VTraceConfig]):
    """V-trace of discrete actions."""

    settings = VTraceConfig

    def estimates(
        self, batch: Batch, values: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Sum]]:
        config, known = self.config, has_target(batch)
        ratio = torch.ones_like(chosen)
        if batch.behaviour is not None:
            ratio = (chosen - batch.behaviour).exp().masked_fill(~known, 1.0)
        rho, c = ratio.clamp(max=config.rho_clip), ratio.clamp(max=config.c_clip)
        goals, later = v_trace(batch, self.rewards(batch), values, rho, c, config.discount)
        advantages = rho * (self.rewards(batch) + later - values)
        return (
            goals,
            advantages,
            {"importance": (ratio.masked_fill(~known, 0.0).sum(), known.sum())},
        )


def v_trace(
    batch: Batch, rewards: Tensor, values: Tensor, rho: Tensor, c: Tensor, discount: float
) -> tuple[Tensor, Tensor]:
    """Returns the targets `v_t` and `γ v_{t+1}`, `(B, T)` each; the values where there are none.

    Args:
        batch: The steps.
        rewards: `(B, T)`.
        values: `(B, T)`, of the observations.
        rho: `(B, T)`, the ratios of errors.
        c: `(B, T)`, the ratios by which errors are passed on.
        discount: γ.
    """
    known, factor = has_target(batch), discount * has_next(batch).float()
    following = factor * F.pad(values[:, 1:], (0, 1))
    deltas = (rho * (rewards + following - values)).masked_fill(~known, 0.0)
    passed, error = factor * c, torch.zeros_like(values[:, 0])
    errors = []  # v_t - V_t, from the last step to the first
    for step in reversed(range(batch.num_steps)):
        error = deltas[:, step] + passed[:, step] * error
        errors.append(error)
    goals = values + torch.stack(errors[::-1], dim=1)
    return goals, factor * F.pad(goals[:, 1:], (0, 1))
