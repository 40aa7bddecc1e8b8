"""minGRU: gates that depend on the input alone, so that all steps are computed at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.cell_settings import MinGRUConfig
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.state import State

_LOG_ZERO = -1e4  # exp of it is 0; -inf would make gradients undefined


@dataclass(frozen=True)
class MinGRUState(State):
    """`log_hidden` `(B, d)`, the logarithm of h after the last step."""

    log_hidden: Tensor


class MinGRUCell(Cell[MinGRUState]):
    """minGRU (Feng et al. 2024, "Were RNNs All We Needed?").

        z_t = sigmoid(W_z x_t)
        c_t = g(W_h x_t),    g(a) = a + 0.5 if a >= 0, else sigmoid(a)
        h_t = (1 - z_t) h_{t-1} + z_t c_t,    h_0 = g(0)

    g keeps h above 0, so that the recurrence is computed in log space, with
    A_t = sum of log(1 - z_s) for s <= t:

        log h_t = A_t + logsumexp(log h_0, log(z_s c_s) - A_s for s <= t)
    """

    def __init__(self, config: MinGRUConfig) -> None:
        super().__init__(config)
        self.gate = nn.Linear(config.d_model, config.d_model)
        self.candidate = nn.Linear(config.d_model, config.d_model)
        self.output = nn.Linear(config.d_model, config.d_model)

    def initial_state(self, batch_size: int) -> MinGRUState:
        """h_0 = g(0) = 0.5."""
        weight = self.gate.weight
        return MinGRUState(weight.new_full((batch_size, len(weight)), 0.5).log())

    def forward(self, x: Tensor, mask: Tensor, state: MinGRUState) -> tuple[Tensor, MinGRUState]:
        """See `Cell`."""
        gate, padding = self.gate(x), ~mask[:, :, None]
        keep = (-F.softplus(gate)).masked_fill(padding, 0.0)  # log(1 - z), (B, T, d)
        write = -F.softplus(-gate) + log_g(self.candidate(x))  # log(z c), (B, T, d)
        write = write.masked_fill(padding, _LOG_ZERO)
        total = keep.cumsum(1)  # A, (B, T, d)
        terms = torch.cat((state.log_hidden[:, None], write - total), dim=1)  # (B, 1 + T, d)
        log_hidden = total + terms.logcumsumexp(1)[:, 1:]
        return self.output(log_hidden.exp()), MinGRUState(log_hidden[:, -1])


def log_g(a: Tensor) -> Tensor:
    """Returns log g(a)."""
    return torch.where(a >= 0, (F.relu(a) + 0.5).log(), -F.softplus(-a))


class MinGRU(RecurrentLayers[MinGRUState]):
    """Layers of `MinGRUCell`."""

    Config = MinGRUConfig
    make_cell = MinGRUCell
