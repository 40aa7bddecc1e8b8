"""The decoder protocol, and the decoder of a whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from rate.state import State
from rate.tokenizers import StepInputs

if TYPE_CHECKING:
    from rate.model import SequenceModel


class Decoder(Protocol):
    """Autoregressive decoding of a backbone, one step of every row at a time."""

    def reset(self, rows: Tensor, state: Any = None) -> None:
        """Starts a new episode in the rows `(B,)`, a bool tensor on the CPU.

        With the backbone's `state` of `B` rows after earlier steps, it goes on after these: as in
        a batch that begins with this state, a segment begins.
        """

    def step(self, tokens: Tensor) -> Tensor:
        """Features `(B, d)` at the last of the tokens `(B, n, d)`, those of `Tokenizer.step`.

        In a row that was just reset, the tokens of the previous step are ignored.
        """


class ModelDecoder:
    """Autoregressive decoding of a model: tokenizer, its backbone's decoder, action head.

    Args:
        model: In evaluation mode.
        batch_size: Rows decoded side by side.
        exact: See `Backbone.make_decoder`.
    """

    def __init__(self, model: SequenceModel, batch_size: int, *, exact: bool = True) -> None:
        self.model, self.batch_size = model, batch_size
        with torch.no_grad():
            self.backbone = model.backbone.make_decoder(batch_size, exact=exact)
        self.reset()

    @torch.no_grad()
    def reset(self, rows: Tensor | None = None, state: State | None = None) -> None:
        """Starts a new episode in the rows `(B,)` bool, best on the CPU, or in all rows.

        Args:
            rows: The rows.
            state: The state after earlier steps, of all rows, to go on from; see `Decoder`.
        """
        all_rows = torch.ones(self.batch_size, dtype=torch.bool)
        rows = all_rows if rows is None else rows.cpu()
        if state is None:
            self.backbone.reset(rows)
        else:
            self.backbone.reset(rows, state)

    @torch.no_grad()
    def step(self, inputs: StepInputs) -> Tensor:
        """The action head's predictions `(B, ...)` for one more step of every row."""
        features = self.backbone.step(self.model.tokenizer.step(inputs))
        features = self.model.conditioned(features, inputs.returns_to_go)
        predictions: Tensor = self.model.head(features)
        return predictions
