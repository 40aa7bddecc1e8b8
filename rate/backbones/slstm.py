"""sLSTM: an LSTM with exponential gates, whose gates see the hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.cell_settings import SLSTMConfig
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.nn.linear_attention import split_heads
from rate.state import State

_LOG_ZERO = -1e4  # of the scale of an empty state


@dataclass(frozen=True)
class SLSTMState(State):
    """The state after the last step, stabilised: c and n of the paper are exp(m) times these.

    Attributes:
        hidden: `(B, H, d_head)`, h.
        cell: `(B, H, d_head)`, c.
        normaliser: `(B, H, d_head)`, n.
        log_scale: `(B, H, d_head)`, m.
    """

    hidden: Tensor
    cell: Tensor
    normaliser: Tensor
    log_scale: Tensor


class SLSTMCell(Cell[SLSTMState]):
    """sLSTM (Beck et al. 2024, arXiv 2405.04517).

        c_t = f_t c_{t-1} + i_t z_t,    z_t = tanh(W_z x_t + R_z h_{t-1})
        n_t = f_t n_{t-1} + i_t
        h_t = o_t c_t / n_t

    with i_t = exp(W_i x_t + R_i h_{t-1}), and f_t and o_t sigmoids of the same form. The matrices R
    are block-diagonal: units of one head see each other. c and n are stored divided by exp(m_t),

        m_t = max(log f_t + m_{t-1}, log i_t)

    h_t depends on h_{t-1} through the gates, so that steps are computed one after another.
    """

    def __init__(self, config: SLSTMConfig) -> None:
        super().__init__(config)
        width, self.heads = config.d_model, config.num_heads
        size = width // self.heads
        self.input = nn.Linear(width, 4 * width)
        self.recurrent = nn.Parameter(torch.randn(self.heads, size, 4 * size) / size**0.5)
        self.norm = nn.RMSNorm(size, eps=1e-5)
        nn.init.zeros_(self.input.bias)
        with torch.no_grad():  # as in the paper: forget gates are open at the start of training
            gates = split_heads(self.input.bias, self.heads)  # (H, 4 d_head): z, i, f, o
            gates[:, 2 * size : 3 * size] = torch.linspace(3, 6, size)

    def initial_state(self, batch_size: int) -> SLSTMState:
        """Zeros."""
        size = self.recurrent.shape[1]
        zeros = self.recurrent.new_zeros(batch_size, self.heads, size)
        return SLSTMState(zeros, zeros.clone(), zeros.clone(), torch.full_like(zeros, _LOG_ZERO))

    def forward(self, x: Tensor, mask: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        """See `Cell`."""
        inputs, outputs = split_heads(self.input(x), self.heads), []  # (B, T, H, 4 d_head)
        for t in range(x.shape[1]):
            state = state.where(mask[:, t], self._step(inputs[:, t], state))
            outputs.append(state.hidden)
        return self.norm(torch.stack(outputs, dim=1)).flatten(2), state

    def _step(self, inputs: Tensor, state: SLSTMState) -> SLSTMState:
        seen = torch.einsum("bhi,hio->bho", state.hidden, self.recurrent)  # (B, H, 4 d_head)
        value, log_input, forget, output = (inputs + seen).chunk(4, dim=-1)
        log_keep = F.logsigmoid(forget) + state.log_scale
        # h does not depend on m: no gradient.
        log_scale = torch.maximum(log_keep, log_input).detach()
        write, keep = (log_input - log_scale).exp(), (log_keep - log_scale).exp()
        cell = keep * state.cell + write * torch.tanh(value)
        normaliser = keep * state.normaliser + write
        return SLSTMState(torch.sigmoid(output) * cell / normaliser, cell, normaliser, log_scale)


class SLSTM(RecurrentLayers[SLSTMState]):
    """Layers of `SLSTMCell`."""

    Config = SLSTMConfig
    make_cell = SLSTMCell
