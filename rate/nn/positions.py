"""Positions: sinusoidal embeddings, and the relative shift of Transformer-XL."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_embedding(positions: Tensor, width: int, slowest: float = 10_000.0) -> Tensor:
    """Sine and cosine of `positions` `(n,)` at frequencies of 1 to 1 / `slowest`: `(n, width)`."""
    frequencies = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions.float()[:, None] * torch.exp(-math.log(slowest) * frequencies / width)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def relative_shift(scores: Tensor, stride: int = 1) -> Tensor:
    """Turns scores by distance into scores by key (Dai et al. 2019, appendix B), without a copy.

    Args:
        scores: `(B, H, Q, D + 1)`, contiguous; column t belongs to the distance D - t.
        stride: Distance from a query to the next: each has its keys `stride` nearer.

    Returns:
        `(B, H, Q, D + 1 - stride)`, a view. Row i, column j belongs to the distance
        D - stride (Q - i) - j; entries of negative distance are undefined.
    """
    queries, columns = scores.shape[-2:]
    width = columns - stride
    flat = scores.flatten(-2)[..., queries * stride :]
    return flat[..., : queries * width].view(*scores.shape[:-1], width)
