"""The auxiliary loss that predicts the privileged state; used in training only."""

from __future__ import annotations

import gymnasium as gym
import torch.nn.functional as F
from torch import Tensor, nn

from rate.batch import Batch
from rate.errors import ConfigError
from rate.scales import box_scale


class AuxiliaryStateHead(nn.Module):
    """Predicts the privileged state from the features of a step (`loss.auxiliary_state_weight`).

    It is trained with the model but not saved with its weights (asymmetric training; Pinto et al.
    2017).

    Args:
        space: Space of the privileged state, a bounded Box. Parts with equal bounds are constant.
        d_model: Width of the features.
        parts: How many of its parts are predicted, from the first on; None is all.

    Raises:
        ConfigError: If a part of the privileged state has no bounds.
    """

    low: Tensor
    range: Tensor

    def __init__(self, space: gym.spaces.Box, d_model: int, parts: int | None = None) -> None:
        super().__init__()
        middle, half, bounded = box_scale(space)
        if not bounded.all():
            raise ConfigError(
                f"loss.auxiliary_state_weight is set, but the privileged state {space} has no "
                "bounds, which its prediction needs; set loss.auxiliary_state_weight=0."
            )
        middle, half = middle[:parts], half[:parts]
        self.register_buffer("low", middle - half, persistent=False)
        self.register_buffer("range", 2 * half, persistent=False)
        self.linear = nn.Linear(d_model, len(middle))

    def loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns the mean cross-entropy over the parts of the state, scaled to [0, 1]: `(B, T)`.

        Raises:
            ValueError: If the batch has no privileged state.
        """
        if batch.privileged is None:
            raise ValueError("The batch has no privileged state to be predicted.")
        told = batch.privileged.flatten(2)[..., : len(self.low)]
        wanted = (told - self.low) / self.range
        logits = self.linear(hidden).float()
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1)
