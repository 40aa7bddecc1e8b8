"""Layers of a recurrent cell in a residual stream, as modern recurrent networks stack them.

A cell is one file: its state, a `Cell`, and a `RecurrentLayers` that names the cell. Its settings
are in `rate.backbones.cell_settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from rate.backbones.cell_settings import RecurrentLayersConfig
from rate.backbones.step_recurrent import StepRecurrent, StepState
from rate.kernels.cpu_dropout import Dropout
from rate.nn.blocks import GatedUnit
from rate.state import State
from rate.tokenizers import StepTokens

C = TypeVar("C", bound=State)


class Cell(nn.Module, Generic[C]):
    """A recurrent cell: a function of many steps at once, or of one.

    Args:
        config: The settings of its backbone.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()

    def initial_state(self, batch_size: int) -> C:
        """Returns the state before the first step of an episode."""
        raise NotImplementedError

    def forward(self, x: Tensor, mask: Tensor, state: C) -> tuple[Tensor, C]:
        """Applies the cell to T steps.

        Args:
            x: `(B, T, d)`.
            mask: `(B, T)` bool, real steps first. Padding leaves the state as it is.
            state: The state before them.

        Returns:
            `(B, T, d)`, of which step t depends on steps up to t alone, and the state after the
            last real step.
        """
        raise NotImplementedError


class FeedForward(nn.Sequential):
    """y = W ((x U) * silu(x V)) of the normalised stream (Shazeer 2020, section 2)."""

    def __init__(self, d_model: int, width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(d_model),
            GatedUnit(d_model, width),
            Dropout(dropout),
            nn.Linear(width, d_model),
            Dropout(dropout),
        )


class Layer(nn.Module, Generic[C]):
    """x + cell(LN(x)), then x + feed_forward(x): pre-norm residual connections."""

    def __init__(self, cell: Cell[C], config: RecurrentLayersConfig, feed_forward: bool) -> None:
        super().__init__()
        self.norm, self.cell = nn.LayerNorm(config.d_model), cell
        self.dropout = Dropout(config.dropout)
        self.feed_forward = (
            FeedForward(config.d_model, config.ff_width, config.dropout) if feed_forward else None
        )

    def forward(self, x: Tensor, mask: Tensor, state: C) -> tuple[Tensor, C]:
        """Takes and returns what `Cell` does."""
        update, state = self._in_full_precision(self.norm(x), mask, state)
        x = x + self.dropout(update)
        if self.feed_forward is not None:
            x = x + self.feed_forward(x)
        return x, state

    def _in_full_precision(self, x: Tensor, mask: Tensor, state: C) -> tuple[Tensor, C]:
        """The cell without autocast: a state adds up the rounding errors of all steps."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            out: tuple[Tensor, C] = self.cell(x, mask, state)
            return out
        with torch.autocast(device, enabled=False):
            out = self.cell(x.float(), mask, state)
            return out


@dataclass(frozen=True, kw_only=True)
class LayersState(StepState, Generic[C]):
    """The state of all layers.

    Attributes:
        cells: The state of the cell of every layer.
    """

    cells: tuple[C, ...]


class RecurrentLayers(StepRecurrent[LayersState[C]]):
    """A stack of layers of one kind of cell, and a norm.

    Attributes:
        make_cell: The class of the cell of a layer, made from the settings.
        feed_forward: Whether a layer has a feed-forward part; a cell that has its own needs none.
    """

    Config = RecurrentLayersConfig
    config: RecurrentLayersConfig
    make_cell: ClassVar[type[Cell[Any]]]
    feed_forward: ClassVar[bool] = True

    def __init__(self, config: RecurrentLayersConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        cells = [self.make_cell(config) for _ in range(config.num_layers)]
        self.layers = nn.ModuleList(Layer(cell, config, self.feed_forward) for cell in cells)
        self.norm = nn.LayerNorm(config.d_model)

    def cells(self) -> list[Cell[C]]:
        """Returns the cells of the layers, in their order."""
        return [layer.cell for layer in self.layers if isinstance(layer, Layer)]

    def initial_state(self, batch_size: int) -> LayersState[C]:
        """The initial states of all cells."""
        cells = tuple(cell.initial_state(batch_size) for cell in self.cells())
        return LayersState(cells=cells, late=self.initial_late(batch_size))

    def run(self, x: Tensor, mask: Tensor, state: LayersState[C]) -> tuple[Tensor, LayersState[C]]:
        """See `StepRecurrent`."""
        cells = []
        for layer, before in zip(self.layers, state.cells, strict=True):
            x, after = layer(x, mask, before)
            cells.append(after)
        return self.norm(x), replace(state, cells=tuple(cells))
