"""What a learning rule is: from what a model makes of a batch to sums that training divides.

A loss is a mean over steps, but the steps may be in several processes, or come in several pieces.
So an objective gives sums and weights, and whoever has all of them divides. The gradient is then
that of one process which had the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gymnasium import spaces
from torch import Tensor, nn

from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec
from rate.model import SequenceModel
from trainers.config_learning import ObjectiveConfig

Sum = tuple[Tensor, Tensor]  # a sum and its weight, `()` both: their quotient is a mean


@dataclass(frozen=True)
class LossSums:
    """What an objective finds in the steps of one process.

    Attributes:
        loss: `()`, the sum of the loss over the steps, with a gradient. Training minimises the sum
            of all processes' sums, divided by the sum of their weights.
        weight: `()`, the weight of the steps.
        metrics: What is logged besides the loss, by name: a sum and its weight each, without
            gradients. The names must be the same in every batch; one whose weights come to 0
            since the last time is not logged.
    """

    loss: Tensor
    weight: Tensor
    metrics: Mapping[str, Sum]

    @classmethod
    def of_steps(
        cls, losses: Mapping[str, Tensor], weights: Tensor, mask: Tensor, metrics: Mapping[str, Sum]
    ) -> LossSums:
        """The sums of one or more losses that each step has.

        Args:
            losses: `(B, T)` by name. They are added up; if there are several, `NAME_loss` is a
                metric of each.
            weights: `(B, T)`, what each step counts; 0 for padding.
            mask: `(B, T)` bool, the real steps.
            metrics: Further ones.
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


def _weighted(losses: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """The sum over real steps. Padding is cut out: multiplied by 0, a NaN there would go on."""
    return (weights * losses.masked_fill(~mask, 0.0)).sum()


@dataclass(frozen=True)
class Problem:
    """What an objective is made for.

    Attributes:
        model: The model to be trained, with its first weights. An objective that keeps target
            networks copies from it; it must not keep the model itself, whose weights would then be
            in the training state twice.
        spec: The environment of the data.
        privileged: The space of the privileged state that batches have, if the settings want it.
    """

    model: SequenceModel
    spec: EnvironmentSpec
    privileged: spaces.Box | None = None


class Objective(nn.Module):
    """A learning rule.

    It is a module of its own beside the model. Its parameters join the optimiser unless they ask
    for no gradient; all of them, and its buffers, are in the training state and resume with it.
    None of them leaves with the model's weights.

    Args:
        settings: An instance of `settings`.
        problem: What to make it for.

    Attributes:
        settings: The dataclass of its settings (`--loss.*`).
    """

    settings: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig

    def __init__(self, settings: ObjectiveConfig, problem: Problem) -> None:
        super().__init__()

    def forward(self, model: SequenceModel, features: Tensor, batch: Batch) -> LossSums:
        """The loss of the steps of one optimiser step, and what is counted along with it.

        It changes no parameter and no buffer: a step may be computed twice (`trainers.graphs`).

        Args:
            model: The model; its heads read the features.
            features: `(B, T, d)`, what the model makes of every step.
            batch: The steps. Where memory is detached (`training.bptt_segments=0`) these are one
                segment, and the segments of a window follow each other.
        """
        raise NotImplementedError

    def after_step(self, model: SequenceModel) -> None:
        """Called after every optimiser step, for example to move target networks.

        Args:
            model: The model with its new weights.
        """
