"""An example of a user's objective: behaviour cloning and a bootstrapped value."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.model import SequenceModel
from trainers.checks import at_least
from trainers.config_learning import ObjectiveConfig
from trainers.objectives.base import LossSums, Objective, Problem


@dataclass(frozen=True)
class ValueConfig(ObjectiveConfig):
    """Its settings.

    Attributes:
        discount: Of later rewards.
        weight: Of the value's loss.
        tau: How far the target network moves in a step.
    """

    discount: float = 0.9
    weight: float = 0.5
    tau: float = 0.25

    def __post_init__(self) -> None:
        at_least("loss.weight", self.weight, 0)


class ValueLearning(Objective):
    """TD(0) for the value of the data's policy with a target network, beside behaviour cloning."""

    settings = ValueConfig

    def __init__(self, settings: ValueConfig, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.config = settings
        self.value = nn.Linear(problem.model.config.d_model, 1)
        self.target = copy.deepcopy(self.value).requires_grad_(False)
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        config, mask = self.config, batch.mask
        values = self.value(features)[..., 0]  # (B, T)
        with torch.no_grad():
            following = self.target(features)[:, 1:, 0]  # (B, T - 1)
            following = torch.where(mask[:, 1:], following, 0.0)
            following = torch.cat((following, torch.zeros_like(values[:, :1])), dim=1)
            wanted = batch.rewards + config.discount * ~batch.terminated * following
            known = batch.terminated | (mask.roll(-1, 1) & mask & ~batch.truncated)
            known[:, -1] = batch.terminated[:, -1]
        errors = torch.where(known, values - wanted, 0.0)
        losses = {
            "action": model.head.loss(model.head(features), batch.actions),
            "value": config.weight * errors.square(),
        }
        metrics = {"td_error": (errors.detach().abs().sum(), known.sum())}
        return LossSums.of_steps(losses, mask.float(), mask, metrics)

    @torch.no_grad()
    def after_step(self, model: SequenceModel) -> None:
        for slow, fast in zip(self.target.parameters(), self.value.parameters(), strict=True):
            slow.lerp_(fast, self.config.tau)
        self.moves += 1


class OtherNames(ValueLearning):
    """Has a metric with a name that the trainer reserves."""

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        sums = super().forward(model, features, batch)
        return LossSums(sums.loss, sums.weight, {"grad_norm": sums.metrics["td_error"]})


class NoObjective:
    """Not an objective."""
