"""What a model carries from one segment to the next, and the valve that guards it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.config import ModelConfig
from rate.nn.blocks import GRUGate
from rate.nn.linear import Linear


@dataclass(frozen=True)
class MemoryState:
    """Everything a model remembers, as a value: made, handed on and never held by a module.

    Attributes:
        tokens: `(B, m, d)` memory tokens, or None.
        cell: `(B, m, d)` second state of a valve that has one (LSTM), or None.
        cache: `(B, L, C, d)` inputs of every layer at the last C step tokens, the newest last,
            or None.
        cached: `(B,)` int64, how many of the C are real; the others are masked out.
    """

    tokens: Tensor | None
    cell: Tensor | None
    cache: Tensor | None
    cached: Tensor | None

    def detach(self) -> MemoryState:
        """The same values without their history: truncates back-propagation."""
        return MemoryState(*(None if t is None else t.detach() for t in self._tensors()))

    def reset(self, rows: Tensor, initial: MemoryState) -> MemoryState:
        """`initial` in the rows `(B,)` bool that are True, this state in the others."""
        return MemoryState(
            *(
                None if old is None or new is None else _select(rows, new, old)
                for old, new in zip(self._tensors(), initial._tensors(), strict=True)
            )
        )

    def rows(self, index: Tensor) -> MemoryState:
        """The rows `index` `(b,)` alone."""
        return MemoryState(*(None if t is None else t[index] for t in self._tensors()))

    def put(self, index: Tensor, rows: MemoryState) -> MemoryState:
        """This state with the rows `index` `(b,)` replaced by `rows`."""
        return MemoryState(
            *(
                None if old is None or new is None else old.index_copy(0, index, new)
                for old, new in zip(self._tensors(), rows._tensors(), strict=True)
            )
        )

    def _tensors(self) -> list[Tensor | None]:
        return [getattr(self, f.name) for f in fields(self)]


def _select(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *(1 for _ in old.shape[1:])), new, old)


class CrossAttention(nn.Module):
    """Multi-head attention of one set of tokens over another, without positions or residual.

    The memory retention valve of RATE: `Dense(MHA(Q W_q, K W_k, V W_v))`, all with biases.
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


class RetentionValve(nn.Module):
    """The memory retention valve: what becomes of memory M given what a segment wrote, C.

    | kind                    | M'                                                  |
    |-------------------------|-----------------------------------------------------|
    | none                    | C                                                   |
    | cross_attention         | Dense(MHA(Q=M, K=V=C)), RATE's own                  |
    | cross_attention_reverse | Dense(MHA(Q=C, K=V=M))                              |
    | gru, lstm               | a recurrent cell per slot, input C, hidden state M  |
    | gated                   | GTrXL's gate(M, C)                                  |
    | latch                   | tanh(Dense(MHA(Q=M, K=V=C))), our own               |

    The latch saturates: around a saturated value the update is flat, so an error of the memory
    shrinks from segment to segment instead of adding up. Such attractors are what holds a bit over
    arbitrary time (Bengio, Simard and Frasconi 1994, section III).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind, self.activation = config.valve, config.valve_activation
        d_model = config.d_model
        if self.kind in ("cross_attention", "cross_attention_reverse", "latch"):
            self.mix = CrossAttention(d_model, config.valve_heads, config.attention_dropout)
        if self.kind == "gru":
            self.gru = nn.GRUCell(d_model, d_model)
        if self.kind == "lstm":
            self.lstm = nn.LSTMCell(d_model, d_model)
        if self.kind == "gated":
            self.gate = GRUGate(d_model)

    def forward(
        self, memory: Tensor, addressed: Tensor, written: Tensor, cell: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """New memory and cell state, both `(B, m, d)`.

        Args:
            memory: `(B, m, d)` memory tokens that entered the segment, M.
            addressed: The same with their slots' embeddings: what attention asks with.
            written: `(B, m, d)` outputs of the write tokens, C.
            cell: `(B, m, d)` cell state of an LSTM valve, else None.
        """
        written = _ACTIVATIONS[self.activation](written)
        if self.kind == "cross_attention":
            return self.mix(addressed, written), None
        if self.kind == "cross_attention_reverse":
            return self.mix(written, addressed), None
        if self.kind == "latch":
            return torch.tanh(self.mix(addressed, written)), None
        if self.kind == "gated":
            return self.gate(memory, written), None
        if self.kind == "gru":
            hidden = self.gru(written.flatten(0, 1), memory.flatten(0, 1))
            return hidden.view_as(memory), None
        if self.kind == "lstm":
            cell = torch.zeros_like(memory) if cell is None else cell
            states = (memory.flatten(0, 1), cell.flatten(0, 1))
            hidden, new_cell = self.lstm(written.flatten(0, 1), states)
            return hidden.view_as(memory), new_cell.view_as(memory)
        return written, None


_ACTIVATIONS = {
    "none": nn.Identity(),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "elu": nn.ELU(),
    "tanh": nn.Tanh(),
}
