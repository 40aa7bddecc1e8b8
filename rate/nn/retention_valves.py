"""Memory retention valves (MRV): the memory update between two segments, M_{n+1} = MRV(M_n, C_n).

M_n are the memory tokens that entered segment n, C_n the outputs of its write tokens (RATE,
Cherepanov et al. 2023, section 4). A valve is one class here and one line in `VALVES`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.nn.gates import GRUGate

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}


class CrossAttention(nn.Module):
    """Multi-head cross-attention without positions or residual connection.

    `Dense(MHA(Q W_q, K W_k, V W_v))`, all with biases.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """`(B, m, d)` queries over `(B, n, d)` context: `(B, m, d)`."""
        # (B, H, m, d_head), and (B, H, n, d_head) each
        q = self.query(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class MemoryRetentionValve(nn.Module):
    """A memory retention valve. This one replaces the memory, as RMT does: M' = C.

    Args:
        d_model: Width of a memory token.
        num_heads: Heads of a valve with attention.
        dropout: Dropout of its attention probabilities.
        activation: Applied to C first; a name in `ACTIVATIONS`.
    """

    has_cell = False  # whether it has a cell state beside the memory tokens (LSTM)

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]()

    def forward(
        self, memory: Tensor, addressed: Tensor, written: Tensor, cell: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """New memory and cell state, both `(B, m, d)`.

        Args:
            memory: `(B, m, d)` memory tokens that entered the segment, M.
            addressed: `(B, m, d)` M with the slot embedding, the queries or keys of attention.
            written: `(B, m, d)` outputs of the write tokens, C.
            cell: `(B, m, d)` cell state of a valve that has one, else None.
        """
        return self.retain(memory, addressed, self.activation(written)), None

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        """M' `(B, m, d)`, from M and C after its activation."""
        return written


class CrossAttentionMRV(MemoryRetentionValve):
    """M' = Dense(MHA(Q=M, K=V=C)), RATE's own."""

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.attention = CrossAttention(d_model, num_heads, dropout)

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        mixed: Tensor = self.attention(addressed, written)
        return mixed


class ReverseCrossAttentionMRV(CrossAttentionMRV):
    """M' = Dense(MHA(Q=C, K=V=M))."""

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        mixed: Tensor = self.attention(written, addressed)
        return mixed


class LatchMRV(CrossAttentionMRV):
    """M' = tanh(Dense(MHA(Q=M, K=V=C))), our own.

    It saturates: the update is flat around a saturated value, so that an error of the memory
    shrinks from segment to segment instead of accumulating. Such attractors hold a bit for an
    arbitrary time (Bengio, Simard and Frasconi 1994, section III).
    """

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        return torch.tanh(super().retain(memory, addressed, written))


class GatedMRV(MemoryRetentionValve):
    """M' = gate(M, C), the gate of GTrXL (Parisotto et al. 2020)."""

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.gate = GRUGate(d_model)

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        gated: Tensor = self.gate(memory, written)
        return gated


class GRUMRV(MemoryRetentionValve):
    """M' = GRU(C, M), applied to every memory token."""

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.gru = nn.GRUCell(d_model, d_model)

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        hidden: Tensor = self.gru(written.flatten(0, 1), memory.flatten(0, 1))
        return hidden.view_as(memory)


class LSTMMRV(MemoryRetentionValve):
    """(M', c') = LSTM(C, (M, c)), applied to every memory token."""

    has_cell = True

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.lstm = nn.LSTMCell(d_model, d_model)

    def forward(
        self, memory: Tensor, addressed: Tensor, written: Tensor, cell: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `MemoryRetentionValve`."""
        cell = torch.zeros_like(memory) if cell is None else cell
        written = self.activation(written)
        states = (memory.flatten(0, 1), cell.flatten(0, 1))
        hidden, new_cell = self.lstm(written.flatten(0, 1), states)
        return hidden.view_as(memory), new_cell.view_as(memory)


class BistableMRV(MemoryRetentionValve):
    """The update of nBRC (Vecoven et al. 2021), one step of it a segment, for every memory token.

        a = 1 + tanh(W_a [M, C] + b_a),  c = sigmoid(W_c [M, C] + b_c)
        M' = c M + (1 - c) tanh(W C + b + a M)

    Where a > 1, a unit that nothing is written to has two stable values and returns to the nearer
    one: memory keeps bits for any number of segments. It starts so: at first, a = 1.5 and c = 0.5
    on average.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.write = nn.Linear(d_model, d_model)
        self.gates = nn.Linear(2 * d_model, 2 * d_model)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor([0.55, 0.0]).repeat_interleave(d_model))

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        gates = self.gates(torch.cat((memory, written), dim=-1))  # (B, m, 2d)
        feedback, keep = gates.chunk(2, dim=-1)  # (B, m, d) each
        feedback, keep = 1 + torch.tanh(feedback), torch.sigmoid(keep)
        return keep * memory + (1 - keep) * torch.tanh(self.write(written) + feedback * memory)


class BinaryMRV(BistableMRV):
    """The sign of the bistable update, -1 or 1 in every unit, our own.

    An error of the memory cannot accumulate: a unit is either right or wrong after a segment, and
    segments that are alike leave memory exactly as it is. The gradient passes through the sign as
    through the identity (straight-through; Bengio, Leonard and Courville 2013, section 4).
    """

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        updated = super().retain(memory, addressed, written)
        return updated + (updated.sign() - updated).detach()


VALVES: dict[str, type[MemoryRetentionValve]] = {
    "none": MemoryRetentionValve,
    "cross_attention": CrossAttentionMRV,
    "cross_attention_reverse": ReverseCrossAttentionMRV,
    "gru": GRUMRV,
    "lstm": LSTMMRV,
    "gated": GatedMRV,
    "latch": LatchMRV,
    "bistable": BistableMRV,
    "binary": BinaryMRV,
}
