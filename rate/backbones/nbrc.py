"""nBRC: a gated cell whose units have two stable states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rate.backbones.cell_settings import NBRCConfig
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.state import State


@dataclass(frozen=True)
class NBRCState(State):
    """`hidden` `(B, d)`, h after the last step."""

    hidden: Tensor


class NBRCCell(Cell[NBRCState]):
    """The recurrently neuromodulated bistable cell (Vecoven et al. 2021).

        a_t = 1 + tanh(U_a x_t + W_a h_{t-1})
        c_t = sigmoid(U_c x_t + W_c h_{t-1})
        h_t = c_t h_{t-1} + (1 - c_t) tanh(U x_t + a_t h_{t-1})

    Without input, h = tanh(a h) has one solution where a <= 1 and two stable ones where a > 1: a
    unit then keeps a bit for any number of steps. h_t depends on h_{t-1} through the gates, so
    that steps are computed one after another.
    """

    def __init__(self, config: NBRCConfig) -> None:
        super().__init__(config)
        self.input = nn.Linear(config.d_model, 3 * config.d_model)
        self.recurrent = nn.Linear(config.d_model, 2 * config.d_model, bias=False)
        self.output = nn.Linear(config.d_model, config.d_model)
        for gate in self.recurrent.weight.data.chunk(2):
            nn.init.orthogonal_(gate)

    def initial_state(self, batch_size: int) -> NBRCState:
        """Zeros."""
        weight = self.output.weight
        return NBRCState(weight.new_zeros(batch_size, len(weight)))

    def forward(self, x: Tensor, mask: Tensor, state: NBRCState) -> tuple[Tensor, NBRCState]:
        """See `Cell`."""
        hidden, outputs = state.hidden, []
        for inputs, real in zip(self.input(x).unbind(1), mask.unbind(1), strict=True):
            of_a, of_c, candidate = inputs.chunk(3, dim=-1)  # (B, d)
            seen_a, seen_c = self.recurrent(hidden).chunk(2, dim=-1)
            a, c = 1 + torch.tanh(of_a + seen_a), torch.sigmoid(of_c + seen_c)
            new = c * hidden + (1 - c) * torch.tanh(candidate + a * hidden)
            hidden = torch.where(real[:, None], new, hidden)
            outputs.append(hidden)
        return self.output(torch.stack(outputs, dim=1)), NBRCState(hidden)


class NBRC(RecurrentLayers[NBRCState]):
    """Layers of `NBRCCell`."""

    Config = NBRCConfig
    make_cell = NBRCCell
