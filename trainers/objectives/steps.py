"""Step weighting: the weight of each step of a batch in the loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rate.batch import Batch
from rate.heads import ActionHead
from trainers.config_learning import LossConfig


def step_weights(batch: Batch, config: LossConfig) -> Tensor:
    """Returns the weight of every step in the loss, `(B, T)` float32; 0 for padding."""
    weights = batch.mask.float()
    if config.weighted_steps == "none":
        return weights
    if config.weighted_steps == "last":
        chosen = last_steps(batch, config.last_steps)
    elif config.weighted_steps == "keyframes":
        chosen = keyframes(batch)
    else:
        chosen = batch.rewards != 0
    return torch.where(chosen, config.step_weight * weights, weights)


def last_steps(batch: Batch, span: int) -> Tensor:
    """Returns the last `span` steps of every episode that ends in a window, `(B, T)` bool."""
    ends = batch.episode_end.float()
    until = F.max_pool1d(F.pad(ends[:, None], (0, span - 1)), span, stride=1)[:, 0]
    return (until > 0) & batch.mask


def accuracies(
    head: ActionHead, predictions: Tensor, batch: Batch, span: int = 1
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns the metrics `accuracy` and `last_step_accuracy`: how often the data's action is best.

    Args:
        head: The action head.
        predictions: `(B, T, ...)` of the head.
        batch: The steps.
        span: How many steps at the end of an episode are its last steps.
    """
    correct = head.correct(predictions, batch.actions) & batch.mask
    last = last_steps(batch, span)
    return {
        "accuracy": (correct.sum(), batch.mask.sum()),
        "last_step_accuracy": ((correct & last).sum(), last.sum()),
    }


def keyframes(batch: Batch) -> Tensor:
    """Returns the steps whose action differs from the one before, `(B, T)` bool.

    The first step of a window is a keyframe. A smooth expert mostly repeats its last action, so a
    model that copies the last action has a low loss without using observations. It errs at
    keyframes (Wen et al. 2021, "Keyframe-Focused Visual Imitation Learning").
    """
    actions = batch.actions.flatten(2) if batch.actions.ndim > 2 else batch.actions[..., None]
    changed = torch.ones_like(batch.mask)
    changed[:, 1:] = (actions[:, 1:] != actions[:, :-1]).any(-1)
    return changed & batch.mask
