"""The memory retention valve (MRV): what becomes of memory when a segment has written.

M are the memory tokens that entered a segment, C the outputs of its write tokens. A valve is one
class here and one line in `VALVES`. (RATE, Cherepanov et al. 2023, section 4.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.nn.gates import GRUGate
from rate.nn.linear import Linear

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}


class CrossAttention(nn.Module):
    """Multi-head attention of one set of tokens over another, without positions or residual.

    `Dense(MHA(Q W_q, K W_k, V W_v))`, all with biases.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query = Linear(d_model, d_model)
        self.key_value = Linear(d_model, 2 * d_model)
        self.out = Linear(d_model, d_model)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """`(B, m, d)` queries over `(B, n, d)` context: `(B, m, d)`."""
        q = self.query(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Valve(nn.Module):
    """A memory retention valve; this one keeps what was written: M' = C.

    Args:
        d_model: Width of a memory token.
        num_heads: Heads of a valve that attends.
        dropout: Dropout of its attention probabilities.
        activation: What C goes through first; a name in `ACTIVATIONS`.
    """

    has_cell = False  # whether it has a second state beside the memory tokens

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]()

    def forward(
        self, memory: Tensor, addressed: Tensor, written: Tensor, cell: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """New memory and cell state, both `(B, m, d)`.

        Args:
            memory: `(B, m, d)` memory tokens that entered the segment, M.
            addressed: The same with their slots' embeddings: what attention asks with.
            written: `(B, m, d)` outputs of the write tokens, C.
            cell: `(B, m, d)`, the second state of a valve that has one, else None.
        """
        return self.retain(memory, addressed, self.activation(written)), None

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        """M' `(B, m, d)`, from C after its activation."""
        return written


class CrossAttentionValve(Valve):
    """M' = Dense(MHA(Q=M, K=V=C)), RATE's own."""

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.mix = CrossAttention(d_model, num_heads, dropout)

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        mixed: Tensor = self.mix(addressed, written)
        return mixed


class ReverseCrossAttentionValve(CrossAttentionValve):
    """M' = Dense(MHA(Q=C, K=V=M))."""

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        mixed: Tensor = self.mix(written, addressed)
        return mixed


class LatchValve(CrossAttentionValve):
    """M' = tanh(Dense(MHA(Q=M, K=V=C))), our own.

    It saturates: around a saturated value the update is flat, so an error of the memory shrinks
    from segment to segment instead of adding up. Such attractors are what holds a bit over
    arbitrary time (Bengio, Simard and Frasconi 1994, section III).
    """

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        return torch.tanh(super().retain(memory, addressed, written))


class GatedValve(Valve):
    """M' = gate(M, C), the gate of GTrXL."""

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.gate = GRUGate(d_model)

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        gated: Tensor = self.gate(memory, written)
        return gated


class GRUValve(Valve):
    """M' = GRU(C, M), a cell per slot."""

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.gru = nn.GRUCell(d_model, d_model)

    def retain(self, memory: Tensor, addressed: Tensor, written: Tensor) -> Tensor:
        hidden: Tensor = self.gru(written.flatten(0, 1), memory.flatten(0, 1))
        return hidden.view_as(memory)


class LSTMValve(Valve):
    """(M', c') = LSTM(C, (M, c)), a cell per slot."""

    has_cell = True

    def __init__(self, d_model: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__(d_model, num_heads, dropout, activation)
        self.lstm = nn.LSTMCell(d_model, d_model)

    def forward(
        self, memory: Tensor, addressed: Tensor, written: Tensor, cell: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Valve`."""
        cell = torch.zeros_like(memory) if cell is None else cell
        written = self.activation(written)
        states = (memory.flatten(0, 1), cell.flatten(0, 1))
        hidden, new_cell = self.lstm(written.flatten(0, 1), states)
        return hidden.view_as(memory), new_cell.view_as(memory)


VALVES: dict[str, type[Valve]] = {
    "none": Valve,
    "cross_attention": CrossAttentionValve,
    "cross_attention_reverse": ReverseCrossAttentionValve,
    "gru": GRUValve,
    "lstm": LSTMValve,
    "gated": GatedValve,
    "latch": LatchValve,
}
