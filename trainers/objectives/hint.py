"""The hidden state as a second thing to be told: an auxiliary loss, in training alone."""

from __future__ import annotations

import gymnasium as gym
import torch.nn.functional as F
from torch import Tensor, nn

from rate.batch import Batch
from rate.errors import ConfigError
from rate.scales import box_scale


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
