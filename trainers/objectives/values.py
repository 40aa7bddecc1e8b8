"""The base of learning rules that learn values from rewards by bootstrapping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from datamodules.shards import pieces
from datamodules.store import Store
from rate.batch import Batch
from rate.errors import ConfigError
from rate.model import SequenceModel
from trainers.config_learning import ObjectiveConfig
from trainers.config_values import ValueConfig
from trainers.objectives.base import Objective, Problem, Sum
from trainers.objectives.targets import TargetNetwork, has_target, n_step_targets

C = TypeVar("C", bound=ValueConfig)


class ValueObjective(Objective, Generic[C]):
    """A learning rule with a target network, over any backbone and tokenizer.

    The model's head acts. Other heads are the objective's own, and do not leave with the model.

    Args:
        settings: The settings.
        problem: The model and the environment.
        heads: The objective's own heads.

    Attributes:
        config: The settings.
        heads: The objective's own heads.
        target: Copies of the model and the heads.
        largest: The largest absolute value that the rewards of the data can add up to.
    """

    settings = ValueConfig

    def __init__(
        self, settings: ObjectiveConfig, problem: Problem, heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(settings, problem)
        self.config = cast("C", settings)
        self.heads = nn.ModuleDict(heads)
        self.target = TargetNetwork(problem.model, self.heads)
        self.largest = math.inf

    def begin(self, model: SequenceModel, store: Store | None) -> None:
        """Starts the target network, and finds the range of values that the data allow.

        Raises:
            ConfigError: If no step of the data has a reward.
        """
        self.target.equal(model, self.heads)
        if store is None:
            return
        parts = [part for _, part in pieces(store.arrays["rewards"])]
        reward = max(abs(float(end)) for part in parts for end in (part.min(), part.max()))
        if reward == 0:
            raise ConfigError(
                f"{store.path}: every reward is 0, and training.objective learns from rewards. "
                "Name their column (--map THEIRS=rewards), take other data, or set "
                "training.objective=behaviour_cloning."
            )
        rate, steps = self.config.discount, int(store.lengths.max())
        if store.ends(torch.arange(store.num_episodes).numpy())[0].all():
            factor = float(steps) if rate == 1 else (1 - rate**steps) / (1 - rate)
        else:  # the environment would have gone on
            factor = math.inf if rate == 1 else 1 / (1 - rate)
        self.largest = reward * factor

    @torch.no_grad()
    def goals(self, batch: Batch, values: Tensor) -> Tensor:
        """Returns the targets, `(B, T)`, given the value of each step's observation, `(B, T)`."""
        return n_step_targets(batch, values, self.config.discount, self.config.n_step)

    def after_step(self, model: SequenceModel) -> None:
        self.target.follow(model, self.heads, self.config.target_rate)

    def warning(self, metrics: Mapping[str, float]) -> str:
        low, high = metrics.get("value_min", 0.0), metrics.get("value_max", 0.0)
        if -self.largest <= low and high <= self.largest:
            return ""
        return (
            f"values diverge: those of the data's actions are {low:.4g} to {high:.4g}, and the "
            f"rewards of the data cannot add up to more than {self.largest:.4g}. Lower "
            "optimizer.learning_rate or loss.target_rate, or choose a conservative objective (cql, "
            "iql)."
        )


@torch.no_grad()
def row_priorities(errors: Tensor, known: Tensor) -> Tensor:
    """Returns the priorities of rows, `(B,)`: 0.9 max + 0.1 mean of their absolute errors.

    Kapturowski et al. 2019, section 2.3.

    Args:
        errors: `(B, T)`, the errors of values.
        known: `(B, T)` bool, the steps that have targets.
    """
    sizes = errors.abs().masked_fill(~known, 0.0)
    return 0.9 * sizes.amax(1) + 0.1 * sizes.sum(1) / known.sum(1).clamp(min=1)


@torch.no_grad()
def value_metrics(batch: Batch, values: Tensor, errors: Tensor, known: Tensor) -> dict[str, Sum]:
    """Returns the metrics of the values of the data's actions.

    Args:
        batch: The steps.
        values: `(B, T)`, the values.
        errors: `(B, T)`, their differences from the targets.
        known: `(B, T)` bool, the steps that have targets.
    """
    mask, one = batch.mask, (batch.mask.any()).float()
    count = mask.sum()
    total = values.masked_fill(~mask, 0.0).sum()
    mean = total / count.clamp(min=1)
    spread = (values - mean).square().masked_fill(~mask, 0.0).sum() / count.clamp(min=1)
    low = values.masked_fill(~mask, math.inf).min()
    high = values.masked_fill(~mask, -math.inf).max()
    return {
        "value": (total, count),
        "value_std": (spread.sqrt() * one, one),
        "value_min": (torch.where(one > 0, low, 0.0), one),
        "value_max": (torch.where(one > 0, high, 0.0), one),
        "td_error": (errors.abs().masked_fill(~known, 0.0).sum(), known.sum()),
    }


__all__ = ["ValueObjective", "has_target", "row_priorities", "value_metrics"]
