"""Double Q-learning with recurrent features (van Hasselt et al. 2016; Ni et al. 2023).

`L = mean (Q(h_t, a_t) - G_t)^2` over the steps of whole windows, where `h_t` are the features of a
step and `G_t` bootstraps from `Q'(h'_{t+n}, argmax_a Q(h_{t+n}, a))`; `Q'` is the target network.
The head of the model predicts `Q`, so that its argmax is the greedy policy.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.heads import DiscreteHead
from rate.model import SequenceModel
from trainers.config_values import QLearningConfig
from trainers.objectives.base import LossSums, Problem, Sum
from trainers.objectives.critics import StateValue
from trainers.objectives.steps import accuracies
from trainers.objectives.targets import has_target, rescaled, unscaled
from trainers.objectives.values import ValueObjective, row_priorities, value_metrics


class DDQN(ValueObjective[QLearningConfig]):
    """Double Q-learning of discrete actions.

    With `loss.dueling`, `Q = V + A - mean A` (Wang et al. 2016): the head predicts `A`, whose
    argmax is that of `Q`.
    """

    settings = QLearningConfig

    def __init__(self, settings: QLearningConfig, problem: Problem) -> None:
        width = problem.model.config.d_model
        heads = {"value": StateValue(width, settings.critic_width)} if settings.dueling else {}
        super().__init__(settings, problem, heads)

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        head: DiscreteHead = model.head  # type: ignore[assignment]
        values = self.action_values(head, self.heads, features)  # (B, T, A)
        index = head.indices(batch.actions)[..., None]
        chosen = values.gather(-1, index)[..., 0]  # (B, T)
        errors = chosen - self._targets(batch, values)
        known = has_target(batch)
        if self.config.burn_in:
            # A window that begins an episode starts from its true state.
            steps = torch.arange(batch.num_steps, device=known.device)
            known = known & ((steps >= self.config.burn_in) | (batch.timesteps[:, :1] == 0))
        further, metrics = self.further_losses(values, chosen, batch)
        with torch.no_grad():
            told = unscaled(chosen) if self.config.rescale_values else chosen
            metrics |= value_metrics(batch, told, errors, known)
            metrics |= accuracies(head, values, batch)
        losses, weights = {"td": errors.square(), **further}, known.float()
        if batch.importance is None:
            return LossSums.of_steps(losses, weights, known, metrics)
        sums = LossSums.of_steps(losses, weights * batch.importance[:, None], known, metrics)
        return replace(sums, priorities=row_priorities(errors, known))

    def action_values(self, head: nn.Module, heads: nn.ModuleDict, features: Tensor) -> Tensor:
        """Returns the values of all actions, `(B, T, A)`, on the scale of the network."""
        values: Tensor = head(features).float()
        if self.config.dueling:
            values = values - values.mean(-1, keepdim=True) + heads["value"](features)[..., None]
        return values

    def further_losses(
        self, values: Tensor, chosen: Tensor, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Sum]]:
        """Returns losses `(B, T)` besides that of the targets, and metrics; here none.

        Args:
            values: `(B, T, A)`, the values of all actions.
            chosen: `(B, T)`, those of the data's actions.
            batch: The steps.
        """
        return {}, {}

    @torch.no_grad()
    def _targets(self, batch: Batch, values: Tensor) -> Tensor:
        """Returns the targets `(B, T)` on the scale of the network."""
        target = self.target
        later = self.action_values(target.model.head, target.heads, target.features(batch))
        best = later.gather(-1, values.argmax(-1, keepdim=True))[..., 0]  # (B, T)
        if not self.config.rescale_values:
            return self.goals(batch, best)
        return rescaled(self.goals(batch, unscaled(best)))
