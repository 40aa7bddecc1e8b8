"""Gates: how an update is let into a stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GRUGate(nn.Module):
    """GRU-type gating of a residual stream (Parisotto et al. 2020, section 3.2).

    Args:
        d_model: Width.
        bias: `b_g`; above zero the gate starts close to the identity of the stream.
    """

    def __init__(self, d_model: int, bias: float = 2.0) -> None:
        super().__init__()
        self.from_update = nn.Linear(d_model, 3 * d_model, bias=False)
        self.from_stream = nn.Linear(d_model, 2 * d_model, bias=False)
        self.from_reset = nn.Linear(d_model, d_model, bias=False)
        self.bias = nn.Parameter(torch.full((d_model,), bias))

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        reset_y, gate_y, candidate_y = self.from_update(update).chunk(3, dim=-1)
        reset_x, gate_x = self.from_stream(stream).chunk(2, dim=-1)
        reset = torch.sigmoid(reset_y + reset_x)
        gate = torch.sigmoid(gate_y + gate_x - self.bias)
        candidate = torch.tanh(candidate_y + self.from_reset(reset * stream))
        return (1 - gate) * stream + gate * candidate
