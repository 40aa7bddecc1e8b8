"""LSTM and GRU: the recurrent baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rate.backbones.base import Backbone
from rate.backbones.settings import GRUConfig, LSTMConfig, RecurrentConfig
from rate.decoders.recurrent import RecurrentDecoder
from rate.kernels.cpu_dropout import Dropout
from rate.state import State
from rate.tokenizers import StepTokens


@dataclass(frozen=True)
class RecurrentState(State):
    """The state between two steps of a recurrent network.

    Attributes:
        hidden: `(B, L, d)`, hidden state h of every layer.
        cell: `(B, L, d)`, cell state c of every layer of an LSTM, or None.
        late: `(B, l, d)` tokens of the last step that are known only after it (its action), zeros
            before the first step.
    """

    hidden: Tensor
    cell: Tensor | None
    late: Tensor


class Recurrent(Backbone[RecurrentState]):
    """A recurrent network that reads one vector a step: (a_{t-1}, R_t, o_t), concatenated.

        x_t = ReLU(W [a_{t-1}, R_t, o_t] + b)
        h_t = cell(x_t, h_{t-1})

    Recurrent weights are initialised orthogonal and biases 0, except the forget gate of an LSTM,
    whose bias is 1 (Jozefowicz et al. 2015).
    """

    Config = RecurrentConfig
    config: RecurrentConfig
    Cells: ClassVar[type[nn.LSTM] | type[nn.GRU]]

    def __init__(self, config: RecurrentConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        width, layers = config.d_model, config.num_layers
        self.input = nn.Linear(tokens.count * width, width)
        self.cells = self.Cells(
            width, width, layers, batch_first=True, dropout=config.dropout if layers > 1 else 0.0
        )
        for name, parameter in self.cells.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.view(-1, width, width):
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias"):
                nn.init.zeros_(parameter)
                if self.has_cell and name.startswith("bias_hh"):
                    parameter.data[width : 2 * width] = 1.0  # gates: input, forget, cell, output
        self.dropout = Dropout(config.dropout)

    @property
    def has_cell(self) -> bool:
        """Whether it is an LSTM."""
        return isinstance(self.cells, nn.LSTM)

    def initial_state(self, batch_size: int) -> RecurrentState:
        """Zeros."""
        config, weight = self.config, self.input.weight
        hidden = weight.new_zeros(batch_size, config.num_layers, config.d_model)
        late = weight.new_zeros(batch_size, self.tokens.late, config.d_model)
        return RecurrentState(hidden, hidden.clone() if self.has_cell else None, late)

    def forward(
        self, tokens: Tensor, mask: Tensor, state: RecurrentState
    ) -> tuple[Tensor, RecurrentState]:
        """See `Backbone`."""
        seen = self.tokens.read + 1
        late = torch.cat((state.late[:, None], tokens[:, :, seen:]), dim=1)  # (B, 1 + K, l, d)
        steps = torch.cat((late[:, :-1], tokens[:, :, :seen]), dim=2)  # (B, K, n, d)
        x = torch.relu(self.input(steps.flatten(2)))  # (B, K, d)
        hidden = state.hidden.transpose(0, 1).contiguous()  # (L, B, d), as PyTorch has it
        cell = None if state.cell is None else state.cell.transpose(0, 1).contiguous()
        before = hidden if cell is None else (hidden, cell)
        # Packed, so that the state of a row is that after its last real step.
        lengths = mask.sum(1)  # (B,)
        packed = pack_padded_sequence(
            x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        features, after = self.cells(packed, before)
        features, _ = pad_packed_sequence(features, batch_first=True, total_length=mask.shape[1])
        hidden, cell = after if self.has_cell else (after, None)
        last = lengths[:, None, None, None].expand(-1, 1, *late.shape[2:])  # (B, 1, l, d)
        new = RecurrentState(
            hidden.transpose(0, 1),
            None if cell is None else cell.transpose(0, 1),
            late.gather(1, last)[:, 0],
        )
        return self.dropout(features), new.where(lengths == 0, state)

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> RecurrentDecoder:
        """A decoder that carries the state from step to step."""
        return RecurrentDecoder(self, batch_size)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    Config = LSTMConfig
    Cells = nn.LSTM


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014)."""

    Config = GRUConfig
    Cells = nn.GRU
