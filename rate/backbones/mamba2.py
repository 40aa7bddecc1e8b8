"""Mamba-2: a state space model with a matrix per head, computed in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.cell_settings import Mamba2Config
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.nn.linear_attention import decayed_linear_attention, in_chunks, split_heads
from rate.state import State

_TIME_STEPS = (1e-3, 1e-1)  # dt at the start of training
_KERNEL = 4  # steps that the convolution sees


@dataclass(frozen=True)
class Mamba2State(State):
    """The state after the last step.

    Attributes:
        memory: `(B, H, N, P)`, h of every head.
        inputs: `(B, 3, 2 d + 2 N)`, the last inputs of the convolution.
    """

    memory: Tensor
    inputs: Tensor


class Mamba2Cell(Cell[Mamba2State]):
    """Mamba-2 (Dao and Gu 2024, arXiv 2405.21060; one group).

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t^T
        y_t = h_t^T C_t + D x_t

    for every head, with A < 0 and D scalars of a head and dt_t = softplus(w x_t + b). x, B and C
    come from a causal convolution over 4 steps and SiLU. The output is RMSNorm(y * SiLU(z)) and a
    projection. It is computed in chunks, by the block decomposition of the paper: decayed linear
    attention with queries C and keys B.
    """

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__(config)
        width, self.heads, self.states = config.d_model, config.num_heads, config.state_size
        self.inner = 2 * width
        channels = self.inner + 2 * self.states
        self.input = nn.Linear(width, self.inner + channels + self.heads, bias=False)
        self.convolution = nn.Conv1d(channels, channels, _KERNEL, groups=channels)
        low, high = (log(step) for step in _TIME_STEPS)
        step = (low + (high - low) * torch.rand(self.heads)).exp()
        self.step_bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # softplus^-1(step)
        self.log_a = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())  # A = -exp(log_a)
        self.skip = nn.Parameter(torch.ones(self.heads, 1))  # D
        self.norm = nn.RMSNorm(self.inner, eps=1e-5)
        self.output = nn.Linear(self.inner, width, bias=False)

    def initial_state(self, batch_size: int) -> Mamba2State:
        """Zeros."""
        weight = self.output.weight
        size, channels = self.inner // self.heads, self.inner + 2 * self.states
        return Mamba2State(
            memory=weight.new_zeros(batch_size, self.heads, self.states, size),
            inputs=weight.new_zeros(batch_size, _KERNEL - 1, channels),
        )

    def forward(self, x: Tensor, mask: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        """See `Cell`."""
        gate, inputs, step = torch.split(
            self.input(x), [self.inner, self.inner + 2 * self.states, self.heads], dim=-1
        )
        inputs = torch.cat((state.inputs, inputs), dim=1)  # (B, 3 + T, 2 d + 2 N)
        convolved = F.silu(self.convolution(inputs.mT)).mT  # (B, T, 2 d + 2 N)
        value, key, query = torch.split(convolved, [self.inner, self.states, self.states], dim=-1)
        value = split_heads(value, self.heads)  # x, (B, T, H, P)
        step = F.softplus(step + self.step_bias) * mask[:, :, None]  # dt, (B, T, H); 0 in padding
        query, key = query[:, :, None], key[:, :, None]  # (B, T, 1, N), the same for all heads
        parts = (query, key, value * step[..., None], -self.log_a.exp() * step)
        out, state = in_chunks(self._chunk, parts, state)  # (B, T, H, P)
        out = (out + self.skip * value).flatten(2)
        last = torch.arange(_KERNEL - 1, device=x.device) + mask.sum(1, keepdim=True)  # (B, 3)
        inputs = inputs.gather(1, last[:, :, None].expand(-1, -1, inputs.shape[2]))
        return self.output(self.norm(out * F.silu(gate))), Mamba2State(state.memory, inputs)

    def _chunk(
        self, query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, state: Mamba2State
    ) -> tuple[Tensor, Mamba2State]:
        out, memory = decayed_linear_attention(query, key, value, log_decay, state.memory)
        return out, Mamba2State(memory, state.inputs)


class Mamba2(RecurrentLayers[Mamba2State]):
    """Layers of `Mamba2Cell`. The cell has the gated projections of a feed-forward layer in it."""

    Config = Mamba2Config
    make_cell = Mamba2Cell
    feed_forward = False
