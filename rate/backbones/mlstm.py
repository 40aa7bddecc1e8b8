"""mLSTM: a matrix per head with exponential gates, computed in chunks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.cell_settings import MLSTMConfig
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.nn.linear_attention import READ_EPS, in_chunks, split_heads
from rate.state import State

_LOG_ZERO = -1e30  # of the input gate of padding


@dataclass(frozen=True)
class MLSTMState(State):
    """The state after the last step, stabilised: C and n of the paper are exp(m) times these.

    Attributes:
        memory: `(B, H, d_head, d_head)`, C^T of every head.
        normaliser: `(B, H, d_head)`, n.
        log_scale: `(B, H)`, m.
    """

    memory: Tensor
    normaliser: Tensor
    log_scale: Tensor


class MLSTMCell(Cell[MLSTMState]):
    """mLSTM (Beck et al. 2024, arXiv 2405.04517), in a block as that of xLSTM 7B.

        C_t = f_t C_{t-1} + i_t v_t k_t^T
        n_t = f_t n_{t-1} + i_t k_t
        h_t = o_t * (C_t q_t) / max(|n_t^T q_t|, 1)

    with i_t = exp(w_i x_t), f_t = sigmoid(w_f x_t) and o_t = sigmoid(W_o x_t); k_t is divided by
    the root of d_head. C and n are stored divided by exp(m_t) (the stabiliser), with

        m_t = max(log f_t + m_{t-1}, log i_t)

    Within a chunk all steps are computed at once: with F_t the sum of log f,
    step t weighs the write of step s by D_ts = F_t - F_s + log i_s, and the state before the chunk
    by F_t + m_0. The block around the cell is that of xLSTM 7B (Beck et al. 2025, arXiv
    2503.13427): no convolution, and a gated feed-forward layer.
    """

    def __init__(self, config: MLSTMConfig) -> None:
        super().__init__(config)
        width, self.heads = config.d_model, config.num_heads
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.input_forget = nn.Linear(width, 2 * self.heads)
        self.gate = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width // self.heads, eps=READ_EPS)
        self.output = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.input_forget.bias)
        with torch.no_grad():  # as in the paper: forget gates are open at the start of training
            self.input_forget.bias[self.heads :] = torch.linspace(3, 6, self.heads)

    def initial_state(self, batch_size: int) -> MLSTMState:
        """Zeros."""
        weight, heads = self.output.weight, self.heads
        size = weight.shape[0] // heads
        return MLSTMState(
            memory=weight.new_zeros(batch_size, heads, size, size),
            normaliser=weight.new_zeros(batch_size, heads, size),
            log_scale=weight.new_zeros(batch_size, heads),
        )

    def forward(self, x: Tensor, mask: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
        """See `Cell`."""
        query, key, value = (
            split_heads(part, self.heads) for part in self.queries_keys_values(x).chunk(3, dim=-1)
        )  # (B, T, H, d_head)
        log_input, forget = self.input_forget(x).chunk(2, dim=-1)  # (B, T, H)
        padding = ~mask[:, :, None]
        log_input = log_input.masked_fill(padding, _LOG_ZERO)
        log_forget = F.logsigmoid(forget).masked_fill(padding, 0.0)
        inputs = (query, key / key.shape[-1] ** 0.5, value, log_input, log_forget)
        out, state = in_chunks(self._chunk, inputs, state)  # (B, T, H, d_head)
        out = torch.sigmoid(self.gate(x)) * self.norm(out).flatten(2)
        return self.output(out), state

    def _chunk(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        log_input: Tensor,
        log_forget: Tensor,
        state: MLSTMState,
    ) -> tuple[Tensor, MLSTMState]:
        """The steps of a chunk, `(B, H, C, d_head)` each; gates `(B, H, C)`."""
        total = log_forget.cumsum(-1)  # F
        log_weight = total[..., :, None] - total[..., None, :] + log_input[..., None, :]  # D
        causal = torch.ones(log_weight.shape[-2:], dtype=torch.bool, device=total.device).tril()
        log_weight = log_weight.masked_fill(~causal, -torch.inf)  # (B, H, C, C)
        log_start = total + state.log_scale[..., None]  # (B, H, C)
        # h does not depend on m: no gradient.
        log_scale = torch.maximum(log_start, log_weight.amax(-1)).detach()  # m, (B, H, C)
        weight = (log_weight - log_scale[..., None]).exp()
        start = (log_start - log_scale).exp()[..., None]  # (B, H, C, 1)
        scores = query @ key.mT * weight
        found = scores @ value + start * (query @ state.memory)  # C q
        size = scores.sum(-1, keepdim=True) + start * (query @ state.normaliser[..., None])  # n q
        out = found / torch.maximum(size.abs(), (-log_scale).exp()[..., None])
        weighted = key * weight[..., -1, :, None]  # (B, H, C, d_head)
        after = MLSTMState(
            memory=start[..., -1:, :] * state.memory + weighted.mT @ value,
            normaliser=start[..., -1, :] * state.normaliser + weighted.sum(-2),
            log_scale=log_scale[..., -1],
        )
        return out, after


class MLSTM(RecurrentLayers[MLSTMState]):
    """Layers of `MLSTMCell`."""

    Config = MLSTMConfig
    make_cell = MLSTMCell
