"""Which steps of a batch count, and how much."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rate.batch import Batch
from trainers.config_learning import LossConfig


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
