"""Dropout on a CPU with sixteen random bits an element, four elements a call of the generator.

PyTorch calls its generator once for every element. The masks are other ones of the same
distribution; they come from PyTorch's generator as well, so that its seed decides them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rate import kernels

_VALUES = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout`, computed here where kernels apply."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` of any shape, each element dropped with probability `p` and the others scaled."""
        if not (self.training and self.p):
            return x
        if not kernels.apply_to(x):
            return super().forward(x)
        return x * dropout_mask(x.shape, self.p).to(x.dtype).mul_(dropout_scale(self.p))


def dropout_mask(shape: torch.Size, p: float) -> Tensor:
    """A bool mask on the CPU, False with probability `p` to the nearest 2^-16."""
    count = shape.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[:count].view(shape) >= _dropped(p) - _VALUES // 2


def dropout_scale(p: float) -> float:
    """The factor of the elements that are not dropped, 1 / (1 - p)."""
    return _VALUES / (_VALUES - _dropped(p))


def _dropped(p: float) -> int:
    """How many of the 2^16 values, the lowest, drop an element."""
    return min(round(_VALUES * p), _VALUES - 1)
