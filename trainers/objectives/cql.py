"""Conservative Q-learning (Kumar et al. 2020, "Conservative Q-Learning for Offline RL").

To the loss of the targets it adds `alpha (log sum_a exp Q(h_t, a) - Q(h_t, a_t))` (equation 4,
CQL(H)): values of actions that the data do not show are pushed down, and cannot be bootstrapped
from. Discrete actions are those of `ddqn`, and the policy is greedy. For continuous actions see
`cql_continuous`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from rate.batch import Batch
from rate.heads import ContinuousHead
from trainers.config_learning import ObjectiveConfig
from trainers.config_values import CQLConfig
from trainers.objectives.base import Objective, Problem, Sum
from trainers.objectives.ddqn import DDQN


class CQL(DDQN):
    """Conservative Q-learning of discrete actions."""

    settings = CQLConfig

    @classmethod
    def make(cls, settings: ObjectiveConfig, problem: Problem) -> Any:
        """Returns the objective for the model's actions."""
        if isinstance(problem.model.head, ContinuousHead):
            from trainers.objectives.cql_continuous import ContinuousCQL

            found: Objective = ContinuousCQL(settings, problem)
            return found
        return super().make(settings, problem)

    def further_losses(
        self, values: Tensor, chosen: Tensor, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Sum]]:
        gap = torch.logsumexp(values, dim=-1) - chosen  # (B, T)
        total = gap.detach().masked_fill(~batch.mask, 0.0).sum()
        weight = cast("CQLConfig", self.config).conservative_weight
        return {"conservative": weight * gap}, {"conservative_gap": (total, batch.mask.sum())}
