"""The interface of learning rules: from the features of a batch to sums of losses and metrics.

A loss is a mean over steps, which may be spread over several processes or segments. Objectives
therefore return sums and weights; training adds these over all processes and divides. The gradient
equals that of a single process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from gymnasium import spaces
from torch import Tensor, nn

from datamodules.store import Store
from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec
from rate.model import SequenceModel
from trainers.config_learning import ObjectiveConfig

Sum = tuple[Tensor, Tensor]  # a sum and its weight, `()` both: their quotient is a mean


@dataclass(frozen=True)
class LossSums:
    """The sums of the loss and the metrics over the steps of one process.

    Attributes:
        loss: `()`, the sum of the loss over the steps, with a gradient. Training minimises the sum
            of all processes' sums, divided by the sum of their weights.
        weight: `()`, the weight of the steps.
        metrics: Further logged metrics by name: a sum and its weight each, without gradients. The
            names must be the same in every batch. A metric is not logged if its weights since the
            last logged row sum to 0.
        priorities: `(B,)`, how much is to be learnt from each row, without a gradient: a replay
            may prefer such rows. None if the rule tells nothing of them.
    """

    loss: Tensor
    weight: Tensor
    metrics: Mapping[str, Sum]
    priorities: Tensor | None = None

    @classmethod
    def of_steps(
        cls, losses: Mapping[str, Tensor], weights: Tensor, mask: Tensor, metrics: Mapping[str, Sum]
    ) -> LossSums:
        """Returns the sums of one or more losses per step.

        Args:
            losses: Losses by name, `(B, T)` each. Their sum is the loss; if there are several, each
                is also a metric `NAME_loss`.
            weights: `(B, T)`, the weight of each step; 0 for padding.
            mask: `(B, T)` bool, the real steps.
            metrics: Further metrics: a sum and its weight each.
        """
        total, *others = losses.values()
        for other in others:
            total = total + other
        weight = weights.sum()
        parts = {}
        if others:
            parts = {
                f"{name}_loss": (_weighted(part.detach(), weights, mask), weight)
                for name, part in losses.items()
            }
        return cls(_weighted(total, weights, mask), weight, {**metrics, **parts})

    def with_losses(self, losses: Mapping[str, Tensor], mask: Tensor) -> LossSums:
        """Returns the sums with a model's own losses: the mean of each is added to the mean loss.

        Args:
            losses: Losses by name, `(B, T)` each. Each is also a metric `NAME_loss`.
            mask: `(B, T)` bool, the real steps.
        """
        loss, metrics, real = self.loss, dict(self.metrics), mask.sum()
        for name, part in losses.items():
            total = part.masked_fill(~mask, 0.0).sum()
            loss = loss + total * self.weight / real.clamp(min=1)
            metrics[f"{name}_loss"] = (total.detach(), real)
        return replace(self, loss=loss, metrics=metrics)


def _weighted(losses: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Returns the weighted sum over real steps. Padding is masked, since 0 * NaN is NaN."""
    return (weights * losses.masked_fill(~mask, 0.0)).sum()


@dataclass(frozen=True)
class Problem:
    """The model and the environment that an objective is constructed for.

    Attributes:
        model: The model to be trained, with its initial weights. Target networks are copies of its
            parts. An objective must not register the model itself, whose weights would then be in
            the training state twice.
        spec: The environment of the data.
        privileged: The space of the privileged state in batches; None if the settings do not use
            it.
    """

    model: SequenceModel
    spec: EnvironmentSpec
    privileged: spaces.Box | None = None


class Objective(nn.Module):
    """A learning rule.

    It is a separate module. Its parameters that require gradients are optimised with the model's.
    All its parameters and buffers are part of checkpoints, and none is part of the saved model.

    Args:
        settings: An instance of the class attribute `settings`.
        problem: The model and the environment.

    Attributes:
        settings: The dataclass of its settings (`--loss.*`).
    """

    settings: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig

    def __init__(self, settings: ObjectiveConfig, problem: Problem) -> None:
        super().__init__()

    @classmethod
    def make(cls, settings: ObjectiveConfig, problem: Problem) -> Self:
        """Returns the objective; a class may return one of its subclasses."""
        return cls(settings, problem)

    def begin(self, model: SequenceModel, store: Store | None) -> None:
        """Called once before training, and before the training state of a resumed run is loaded.

        Args:
            model: The model with its initial weights and the scales of the data.
            store: The data; None in an environment alone.
        """

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        """Returns the sums of the loss and the metrics of one optimiser step.

        It must not change parameters or buffers: a step may be computed twice (`trainers.graphs`).

        Args:
            model: The model, whose heads are applied to the features.
            features: `(B, T, d)`, the features of every step.
            batch: The steps. With detached memory (`training.bptt_segments=0`) these are one
                segment; the segments of a window come in order.
        """
        raise NotImplementedError

    def after_step(self, model: SequenceModel) -> None:
        """Called after every optimiser step, for example to update target networks.

        Args:
            model: The model with its updated weights.
        """

    def warning(self, metrics: Mapping[str, float]) -> str:
        """Returns what is wrong with the training, in a sentence; empty if nothing is.

        Args:
            metrics: The means since the last logged row.
        """
        return ""
