"""The decoder protocol, and the decoder of a whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from rate.tokenizers import StepInputs

if TYPE_CHECKING:
    from rate.model import SequenceModel


class Decoder(Protocol):
    """Autoregressive decoding of a backbone, one step of every row at a time."""

    def reset(self, rows: Tensor) -> None:
        """Starts a new episode in the rows `(B,)`, a bool tensor on the CPU."""

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
    def reset(self, rows: Tensor | None = None) -> None:
        """Starts a new episode in the rows `(B,)` bool, best on the CPU, or in all rows."""
        all_rows = torch.ones(self.batch_size, dtype=torch.bool)
        self.backbone.reset(all_rows if rows is None else rows.cpu())

    @torch.no_grad()
    def step(self, inputs: StepInputs) -> Tensor:
        """The action head's predictions `(B, ...)` for one more step of every row."""
        features = self.backbone.step(self.model.tokenizer.step(inputs))
        features = self.model.conditioned(features, inputs.returns_to_go)
        predictions: Tensor = self.model.head(features)
        return predictions
