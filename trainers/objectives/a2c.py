"""Advantage actor-critic (Mnih et al. 2016, "Asynchronous Methods for Deep RL", synchronous).

The targets are returns: Monte Carlo returns (`loss.n_step=null`) or n-step ones, which bootstrap
from the value. The advantages are their differences from the values.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rate.batch import Batch
from trainers.config_values import A2CConfig
from trainers.objectives.actor_critic import ActorCritic
from trainers.objectives.base import Sum
from trainers.objectives.targets import has_target, n_step_targets


class A2C(ActorCritic[A2CConfig]):
    """Advantage actor-critic of discrete actions."""

    settings = A2CConfig

    def estimates(
        self, batch: Batch, values: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Sum]]:
        config, steps = self.config, batch.num_steps
        n_step = steps if config.n_step is None else min(config.n_step, steps)
        clipped = replace(batch, rewards=self.rewards(batch))
        goals = n_step_targets(clipped, values, config.discount, n_step)
        if config.normalise_returns:
            goals = _normalised(goals, has_target(batch))
        return goals, goals - values, {}


def _normalised(returns: Tensor, known: Tensor) -> Tensor:
    """Returns the returns `(B, T)` with mean 0 and deviation 1 over the known steps of each row."""
    count = known.sum(1, keepdim=True).clamp(min=1)
    centred = returns - returns.masked_fill(~known, 0.0).sum(1, keepdim=True) / count
    variance = centred.square().masked_fill(~known, 0.0).sum(1, keepdim=True) / count
    return centred / variance.sqrt().clamp(min=1e-6)
