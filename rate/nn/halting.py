"""Adaptive computation time: every token decides after how many layers it is done."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_HALTING_BIAS = 1.0  # that of tensor2tensor: tokens halt after one or two layers at first


@dataclass(frozen=True)
class Ponder:
    """What tokens have spent so far.

    Attributes:
        halted: `(B, T)` sum of their halting probabilities; 1 where a token has halted.
        cost: `(B, T)` layers that they took, and the remainder of those that have halted.
    """

    halted: Tensor
    cost: Tensor


class Halting(nn.Module):
    """The halting unit of adaptive computation time (Graves 2016, arXiv 1603.08983).

    Layer i halts a token with probability p_i = sigmoid(w x_i + b). A token halts at the first
    layer N at which p_1 + ... + p_N exceeds the threshold; the weights of its layers are p_1, ...,
    p_{N-1} and the remainder R = 1 - p_1 - ... - p_{N-1}. Its ponder cost is N + R.

    Args:
        d_model: Width of a token.
        threshold: A token halts when its probabilities sum to more.
    """

    def __init__(self, d_model: int, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.linear = nn.Linear(d_model, 1)
        nn.init.constant_(self.linear.bias, _HALTING_BIAS)

    def forward(self, x: Tensor, ponder: Ponder | None) -> tuple[Tensor, Ponder]:
        """The weight of a layer's output.

        Args:
            x: `(B, T, d)` inputs of the layer.
            ponder: What the layers before have spent; None at the first.

        Returns:
            Weights `(B, T, 1)`, 0 where a token has halted before, and the new sums.
        """
        if ponder is None:
            zeros = x.new_zeros(x.shape[:-1])
            ponder = Ponder(zeros, zeros)
        probability = torch.sigmoid(self.linear(x))[..., 0]  # (B, T)
        running, remainder = ponder.halted < 1, 1 - ponder.halted
        halts = running & (ponder.halted + probability > self.threshold)
        weight = torch.where(halts, remainder, probability.to(x.dtype)) * running
        halted = torch.where(halts, 1.0, ponder.halted + weight)
        cost = ponder.cost + running + remainder * halts
        return weight[..., None], Ponder(halted, cost)
