"""Adaptive attention span: every head learns how far back it looks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_INITIAL = 0.3  # of the longest span
_CLOSED = -1e9  # logarithm of a mask of 0: finite, and exp of it is 0
_PIECE = 64  # keys are left out in multiples of it


class AdaptiveSpan(nn.Module):
    """The soft mask over distances of every head (Sukhbaatar et al. 2019, arXiv 1905.07799).

        m_z(x) = clamp((R + z - x) / R, 0, 1),    z = share * L

    of distance x, with ramp R and a learned share of the longest span L. Attention weights are
    m_z * exp(score), normalised, which is the softmax of score + log m_z.

    Args:
        num_heads: Number of heads.
        longest: L, in tokens.
        ramp: R, in tokens.

    Attributes:
        share: `(H,)` z / L of every head; in [0, 1] after `clamp`.
    """

    def __init__(self, num_heads: int, longest: int, ramp: int) -> None:
        super().__init__()
        self.longest, self.ramp = longest, ramp
        self.share = nn.Parameter(torch.full((num_heads,), _INITIAL))

    def log_mask(self, distances: Tensor) -> Tensor:
        """Returns log m_z `(H, D)` of distances `(D,)`; it is very negative where m_z is 0."""
        span = self.share[:, None] * self.longest
        mask = ((self.ramp + span - distances) / self.ramp).clamp(0, 1)
        return torch.where(mask > 0, mask.clamp(min=1e-30).log(), _CLOSED)

    def out_of_reach(self, cache: int) -> int:
        """How many of the oldest of `cache` cached keys no head looks at.

        They are at distances `cache` to 1 from the first query. Waits for the device.
        """
        reach = math.ceil(float(self.share.detach().max()) * self.longest + self.ramp)
        return max(0, cache - reach) // _PIECE * _PIECE

    @torch.no_grad()
    def clamp(self) -> None:
        """Brings the shares back into [0, 1], after an optimiser step."""
        self.share.clamp_(0, 1)
