"""Gated DeltaNet: a matrix per head, rewritten by the delta rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.cell_settings import GatedDeltaNetConfig
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.nn.linear_attention import (
    READ_EPS,
    decay_between,
    decayed_linear_attention,
    in_chunks,
    split_heads,
)
from rate.state import State

_OPEN = 4.0  # bias of the decay: a = sigmoid(4) = 0.98 a step at the start of training


@dataclass(frozen=True)
class GatedDeltaNetState(State):
    """`memory` `(B, H, d_head, d_head)`, S^T of every head after the last step."""

    memory: Tensor


class GatedDeltaNetCell(Cell[GatedDeltaNetState]):
    """The gated delta rule (Yang et al. 2024, arXiv 2412.06464).

        S_t = a_t S_{t-1} (I - b_t k_t k_t^T) + (w_t * v_t) k_t^T
        o_t = S_t q_t

    The paper writes with the gate that it erases with, w_t = b_t. Here they are apart, as in Gated
    DeltaNet-2 (arXiv 2605.22791): the decay a_t in (0, 1) and the erase gate b_t in (0, 2) are
    scalars of a head, the write gate w_t in (0, 1) is a vector. b_t above 1 gives negative
    eigenvalues, with which a state can be tracked (Grazzi et al. 2024, arXiv 2411.12537). As k_t
    has norm 1, no transition enlarges S. Without the paper's short convolutions.

    Within a chunk, S_t = a_t S_{t-1} + u_t k_t^T with

        u_t = w_t * v_t - b_t a_t S_{t-1} k_t

    which is one triangular system for all u of the chunk (the WY representation).
    """

    def __init__(self, config: GatedDeltaNetConfig) -> None:
        super().__init__(config)
        width, self.heads = config.d_model, config.num_heads
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.decay_erase = nn.Linear(width, 2 * self.heads)
        self.write = nn.Linear(width, width)
        self.gate = nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(width // self.heads, eps=READ_EPS)
        self.output = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.decay_erase.bias)
        nn.init.constant_(self.decay_erase.bias[: self.heads], _OPEN)

    def initial_state(self, batch_size: int) -> GatedDeltaNetState:
        """Zeros."""
        size = self.output.weight.shape[0] // self.heads
        return GatedDeltaNetState(self.output.weight.new_zeros(batch_size, self.heads, size, size))

    def forward(
        self, x: Tensor, mask: Tensor, state: GatedDeltaNetState
    ) -> tuple[Tensor, GatedDeltaNetState]:
        """See `Cell`."""
        real = mask[:, :, None, None].to(x.dtype)  # (B, T, 1, 1)
        query, key, value = (
            split_heads(F.silu(part), self.heads)
            for part in self.queries_keys_values(x).chunk(3, dim=-1)
        )  # (B, T, H, d_head)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1) * real
        decay, erase = split_heads(self.decay_erase(x), 2)[..., None].unbind(2)
        log_decay = F.logsigmoid(decay) * real  # (B, T, H, 1)
        value = value * split_heads(torch.sigmoid(self.write(x)), self.heads)
        inputs = (query, key, value, log_decay, 2 * torch.sigmoid(erase))
        out, state = in_chunks(self._chunk, inputs, state)  # (B, T, H, d_head)
        out = self.norm(out).flatten(2) * F.silu(self.gate(x))
        return self.output(out), state

    def _chunk(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        log_decay: Tensor,
        erase: Tensor,
        state: GatedDeltaNetState,
    ) -> tuple[Tensor, GatedDeltaNetState]:
        """The steps of a chunk, `(B, H, C, ...)` each."""
        total, between = decay_between(log_decay[..., 0])
        system = (erase * (key @ key.mT) * between).tril(-1)  # (B, H, C, C)
        found = erase * total.exp()[..., None] * (key @ state.memory)  # (B, H, C, d_head)
        update = value - found
        if update.shape[2] > 1:  # of one step it is the solution; ONNX has no such solver
            update = torch.linalg.solve_triangular(system, update, upper=False, unitriangular=True)
        out, memory = decayed_linear_attention(query, key, update, log_decay[..., 0], state.memory)
        return out, GatedDeltaNetState(memory)


class GatedDeltaNet(RecurrentLayers[GatedDeltaNetState]):
    """Layers of `GatedDeltaNetCell`."""

    Config = GatedDeltaNetConfig
    make_cell = GatedDeltaNetCell
