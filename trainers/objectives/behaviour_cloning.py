"""Behaviour cloning: supervised prediction of the actions of the data.

With returns-to-go as inputs (`model.condition_on_return`) this is the loss of the Decision
Transformer (Chen et al. 2021) and of RATE (Cherepanov et al. 2023), otherwise plain imitation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate.batch import Batch
from rate.model import SequenceModel
from trainers.config_learning import LossConfig
from trainers.objectives.auxiliary_state import AuxiliaryStateHead
from trainers.objectives.base import LossSums, Objective, Problem
from trainers.objectives.steps import accuracies, step_weights


class BehaviourCloning(Objective):
    """The loss of the action head, plus an auxiliary state loss (`loss.auxiliary_state_weight`).

    Metrics: `accuracy` over all real steps and `last_step_accuracy` over the last steps of
    episodes; with two losses also `action_loss` and the weighted `auxiliary_state_loss`.
    """

    settings = LossConfig

    def __init__(self, settings: LossConfig, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.config = settings
        self.auxiliary_head: AuxiliaryStateHead | None = None
        if problem.privileged is not None:
            width = problem.model.config.d_model
            self.auxiliary_head = AuxiliaryStateHead(
                problem.privileged, width, settings.auxiliary_state_parts
            )

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        config, head = self.config, model.head
        predictions = head(features)  # (B, T, ...)
        losses = {"action": head.loss(predictions, batch.actions, config.label_smoothing)}  # (B, T)
        if self.auxiliary_head is not None:
            told = self.auxiliary_head.loss(features, batch)  # (B, T)
            losses["auxiliary_state"] = config.auxiliary_state_weight * told
        with torch.no_grad():
            weights = step_weights(batch, config)  # (B, T)
            metrics = accuracies(head, predictions, batch, config.last_steps)
        return LossSums.of_steps(losses, weights, batch.mask, metrics)
