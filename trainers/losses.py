"""The training loss and what is counted along with it."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.batch import Batch
from rate.errors import ConfigError
from rate.heads import ActionHead
from rate.scales import box_scale
from trainers.config_learning import LossConfig


class HintHead(nn.Module):
    """Tells the hidden state of the environment; of use in training alone (`loss.hint_weight`).

    Args:
        space: Of the hidden state: a bounded Box. A part whose bounds are equal is always told.
        d_model: Width of what it reads.

    Raises:
        ConfigError: If a part of the hidden state has no bounds.
    """

    low: Tensor
    range: Tensor

    def __init__(self, space: gym.spaces.Box, d_model: int) -> None:
        super().__init__()
        middle, half, bounded = box_scale(space)
        if not bounded.all():
            raise ConfigError(
                f"loss.hint_weight is set, but the hidden state {space} has no bounds to tell it "
                "between; set loss.hint_weight=0."
            )
        self.register_buffer("low", middle - half, persistent=False)
        self.register_buffer("range", 2 * half, persistent=False)
        self.linear = nn.Linear(d_model, len(middle))

    def loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """`(B, T)`: mean cross-entropy of the parts of the state, each scaled to [0, 1].

        Raises:
            ValueError: If the batch has no hidden state.
        """
        if batch.hint is None:
            raise ValueError("The batch has no hidden state (hint) to be predicted.")
        wanted = (batch.hint.flatten(2) - self.low) / self.range
        logits = self.linear(hidden).float()
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1)


@dataclass(frozen=True)
class Totals:
    """Sums over the real steps of a batch; sums of several batches add up.

    Attributes:
        loss: Weighted loss.
        weight: Weights of the loss.
        steps: Real steps.
        correct: Real steps whose action is predicted.
        decisive: Real steps that decide an episode: its last ones.
        decisive_correct: Those of them whose action is predicted.
    """

    loss: float = 0.0
    weight: float = 0.0
    steps: float = 0.0
    correct: float = 0.0
    decisive: float = 0.0
    decisive_correct: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        mine, others = vars(self).values(), vars(other).values()
        return Totals(*(a + b for a, b in zip(mine, others, strict=True)))

    @property
    def mean_loss(self) -> float:
        return self.loss / self.weight if self.weight else self.loss

    def metrics(self) -> dict[str, float]:
        """Means; what has nothing to be a mean of is left out."""
        values = {"loss": self.mean_loss}
        if self.steps:
            values["accuracy"] = self.correct / self.steps
        if self.decisive:
            values["decisive_accuracy"] = self.decisive_correct / self.decisive
        return values


TOTALS = tuple(vars(Totals()))


def step_weights(batch: Batch, config: LossConfig) -> Tensor:
    """What every step counts in the loss, `(B, T)` float32: 0 for padding."""
    weights = batch.mask.float()
    if config.decisive_steps == "none":
        return weights
    if config.decisive_steps == "final":
        decisive = final_steps(batch, config.decisive_span)
    elif config.decisive_steps == "changes":
        decisive = changes(batch)
    else:
        decisive = batch.rewards != 0
    return torch.where(decisive, config.decisive_weight * weights, weights)


def final_steps(batch: Batch, span: int) -> Tensor:
    """`(B, T)` bool: the last `span` steps of every episode whose end a window shows."""
    ends = batch.episode_end.float()
    until = F.max_pool1d(F.pad(ends[:, None], (0, span - 1)), span, stride=1)[:, 0]
    return (until > 0) & batch.mask


def changes(batch: Batch) -> Tensor:
    """`(B, T)` bool: steps whose action is another than the one before; a window's first is one.

    Most actions of a smooth expert are its last ones once more. A model finds that out before it
    looks at anything, and then has little left to learn from (Wen et al. 2021, "Keyframe-Focused
    Visual Imitation Learning").
    """
    actions = batch.actions.flatten(2) if batch.actions.ndim > 2 else batch.actions[..., None]
    changed = torch.ones_like(batch.mask)
    changed[:, 1:] = (actions[:, 1:] != actions[:, :-1]).any(-1)
    return changed & batch.mask


def batch_totals(
    head: ActionHead,
    predictions: Tensor,
    batch: Batch,
    config: LossConfig,
    hint_losses: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the losses, to differentiate, and the sums that `Totals` names.

    Args:
        head: Knows the loss of its predictions.
        predictions: `(B, T, ...)` of the head.
        batch: What should have been predicted.
        config: The settings of the loss.
        hint_losses: `(B, T)` of a `HintHead`, if the hidden state is to be told as well.

    Returns:
        A scalar with gradient, and `(6,)` float32 without.
    """
    losses = head.loss(predictions, batch.actions, config.label_smoothing)  # (B, T)
    if hint_losses is not None:
        losses = losses + config.hint_weight * hint_losses
    weights = step_weights(batch, config)
    # Padding is cut out, not multiplied by 0, which would let a NaN through.
    loss = (weights * losses.masked_fill(~batch.mask, 0.0)).sum()
    with torch.no_grad():
        correct = head.correct(predictions, batch.actions) & batch.mask
        decisive = final_steps(batch, config.decisive_span)
        counts = [batch.mask.sum(), correct.sum(), decisive.sum(), (correct & decisive).sum()]
        totals = torch.stack([loss.detach(), weights.sum(), *(n.float() for n in counts)])
    return loss, totals
