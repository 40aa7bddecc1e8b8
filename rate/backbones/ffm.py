"""FFM: a bank of decaying, rotating traces of the input."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor, nn

from rate.backbones.cell_settings import FFMConfig
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.nn.scan import linear_scan
from rate.state import State

_LONGEST = 1024  # steps: the longest time constant and period at the start of training


@dataclass(frozen=True)
class FFMState(State):
    """`traces` `(B, m, c, 2)`, the real and imaginary parts of S after the last step."""

    traces: Tensor


class FFMCell(Cell[FFMState]):
    """Fast and Forgetful Memory (Morad et al. 2023, arXiv 2310.04128).

        S_t = gamma * S_{t-1} + (l_1(x_t) * sigmoid(l_2(x_t))) 1^T,    S complex, m x c
        gamma_jk = exp(-|alpha_j| - i omega_k)
        z_t = l_3(Re S_t, Im S_t)
        y_t = LN(z_t) * sigmoid(l_4(x_t)) + l_5(x_t) * (1 - sigmoid(l_4(x_t)))

    Time constants 1 / alpha and periods 2 pi / omega start geometrically spaced up to 1024 steps
    (the paper spaces alpha and omega linearly). Computed by a scan over steps.
    """

    def __init__(self, config: FFMConfig) -> None:
        super().__init__(config)
        width, memory, context = config.d_model, config.memory_size, config.context_size
        self.write = nn.Linear(width, 2 * memory)  # l_1, l_2
        self.read = nn.Linear(2 * memory * context, width)  # l_3
        self.output = nn.Linear(width, 2 * width)  # l_4, l_5
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.alpha = nn.Parameter(torch.linspace(0, -log(_LONGEST), memory).exp())
        self.omega = nn.Parameter(2 * pi * torch.linspace(-log(4), -log(_LONGEST), context).exp())

    def initial_state(self, batch_size: int) -> FFMState:
        """Zeros."""
        return FFMState(self.alpha.new_zeros(batch_size, len(self.alpha), len(self.omega), 2))

    def forward(self, x: Tensor, mask: Tensor, state: FFMState) -> tuple[Tensor, FFMState]:
        """See `Cell`."""
        real = mask[:, :, None, None]  # (B, T, 1, 1)
        value, gate = self.write(x)[..., None].chunk(2, dim=2)  # (B, T, m, 1)
        written = (value * torch.sigmoid(gate) * real).expand(-1, -1, -1, len(self.omega))
        written = torch.complex(written, torch.zeros_like(written))  # (B, T, m, c)
        shape = (len(self.alpha), len(self.omega))
        size, angle = -self.alpha.abs()[:, None].expand(shape), -self.omega.expand(shape)
        decay = torch.where(real, torch.complex(size, angle).exp(), 1.0)  # gamma, (B, T, m, c)
        traces = linear_scan(decay, written, torch.view_as_complex(state.traces))
        parts = torch.view_as_real(traces)  # (B, T, m, c, 2)
        read = self.norm(self.read(parts.flatten(2)))  # (B, T, d)
        gate, skip = self.output(x).chunk(2, dim=-1)
        return torch.lerp(skip, read, torch.sigmoid(gate)), FFMState(parts[:, -1])


class FFM(RecurrentLayers[FFMState]):
    """Layers of `FFMCell`."""

    Config = FFMConfig
    make_cell = FFMCell
