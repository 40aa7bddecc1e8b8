"""LSTM and GRU: the recurrent baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rate.backbones.cell_settings import GRUConfig, LSTMConfig, RecurrentConfig
from rate.backbones.step_recurrent import StepRecurrent, StepState
from rate.tokenizers import StepTokens
from rate.tracing import is_exporting


@dataclass(frozen=True, kw_only=True)
class RecurrentState(StepState):
    """The state of an LSTM or a GRU.

    Attributes:
        hidden: `(B, L, d)`, hidden state h of every layer.
        cell: `(B, L, d)`, cell state c of every layer of an LSTM, or None.
    """

    hidden: Tensor
    cell: Tensor | None


class Recurrent(StepRecurrent[RecurrentState]):
    """A recurrent network of PyTorch, h_t = cell(x_t, h_{t-1}).

    Recurrent weights are initialised orthogonal and biases 0, except the forget gate of an LSTM,
    whose bias is 1 (Jozefowicz et al. 2015).
    """

    Config = RecurrentConfig
    config: RecurrentConfig
    Cells: ClassVar[type[nn.LSTM] | type[nn.GRU]]

    def __init__(self, config: RecurrentConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        width, layers = config.d_model, config.num_layers
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

    @property
    def has_cell(self) -> bool:
        """Whether it is an LSTM."""
        return isinstance(self.cells, nn.LSTM)

    def initial_state(self, batch_size: int) -> RecurrentState:
        """Zeros."""
        config = self.config
        weight = next(self.parameters())
        hidden = weight.new_zeros(batch_size, config.num_layers, config.d_model)
        return RecurrentState(
            hidden=hidden,
            cell=hidden.clone() if self.has_cell else None,
            late=self.initial_late(batch_size),
        )

    def run(self, x: Tensor, mask: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """See `StepRecurrent`."""
        hidden = state.hidden.transpose(0, 1).contiguous()  # (L, B, d), as PyTorch has it
        cell = None if state.cell is None else state.cell.transpose(0, 1).contiguous()
        before = hidden if cell is None else (hidden, cell)
        if x.device.type == "cpu" and not is_exporting():
            # Packed, so that the state of a row is that after its last real step.
            lengths = mask.sum(1).clamp(min=1)  # (B,)
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            features, after = self.cells(packed, before)
            features, _ = pad_packed_sequence(
                features, batch_first=True, total_length=mask.shape[1]
            )
        else:
            # Padding too: packing waits for a GPU, and a CUDA graph cannot record it. Padding only
            # ends a window, so that no real step reads the state after it. A graph of one step has
            # no padding.
            features, after = self.cells(x, before)
        hidden, cell = after if self.has_cell else (after, None)
        cell = None if cell is None else cell.transpose(0, 1)
        return features, replace(state, hidden=hidden.transpose(0, 1), cell=cell)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    Config = LSTMConfig
    Cells = nn.LSTM


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014)."""

    Config = GRUConfig
    Cells = nn.GRU
