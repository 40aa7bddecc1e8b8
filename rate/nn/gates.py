"""Gates g(x, y) of an update y of a stream x (GTrXL, Parisotto et al. 2020, section 3.2).

Their biases b_g make a new gate close to the identity of the stream: the model begins as a function
of the current step, and memory is learnt later. It is 2 in the GRU gate and 1 in the others.
"""

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


class LinearGate(nn.Module):
    """What the simpler gates share: one matrix W and the bias b_g.

    Args:
        d_model: Width.
        bias: `b_g`; above zero the gate starts close to the identity of the stream.
    """

    def __init__(self, d_model: int, bias: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, d_model, bias=False)
        self.bias = nn.Parameter(torch.full((d_model,), bias))


class InputGate(nn.Module):
    """g = sigmoid(W x) * x + y. It has no bias."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, d_model, bias=False)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(stream)) * stream + update


class OutputGate(LinearGate):
    """g = x + sigmoid(W x - b_g) * y."""

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return stream + torch.sigmoid(self.linear(stream) - self.bias) * update


class HighwayGate(LinearGate):
    """g = z * x + (1 - z) * y, with z = sigmoid(W x + b_g) (Srivastava et al. 2015)."""

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        keep = torch.sigmoid(self.linear(stream) + self.bias)
        return keep * stream + (1 - keep) * update


class SigTanhGate(LinearGate):
    """g = x + sigmoid(W y - b_g) * tanh(U y)."""

    def __init__(self, d_model: int, bias: float = 1.0) -> None:
        super().__init__(d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias=False)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        gate = torch.sigmoid(self.linear(update) - self.bias)
        return stream + gate * torch.tanh(self.value(update))
