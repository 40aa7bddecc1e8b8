"""A multi-layer perceptron: no memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rate.backbones.base import Backbone
from rate.backbones.cell_settings import MLPConfig
from rate.backbones.recurrent_layers import FeedForward
from rate.backbones.window_transformer import NoState
from rate.kernels.cpu_dropout import Dropout
from rate.tokenizers import StepTokens


class MLP(Backbone[NoState]):
    """A function of R_t and o_t alone: what can be done without memory.

        x = W [R_t, o_t],    x <- x + W_l ((LN(x) U_l) * silu(LN(x) V_l)) for every layer l

    It does not see a_{t-1}, which would carry what led to it.
    """

    Config = MLPConfig
    config: MLPConfig

    def __init__(self, config: MLPConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        width = config.d_model
        self.input = nn.Linear((tokens.read + 1) * width, width)
        self.layers = nn.ModuleList(
            FeedForward(width, config.ff_width, config.dropout) for _ in range(config.num_layers)
        )
        self.norm, self.dropout = nn.LayerNorm(width), Dropout(config.dropout)

    def initial_state(self, batch_size: int) -> NoState:
        """The empty state."""
        return NoState()

    def forward(self, tokens: Tensor, mask: Tensor, state: NoState) -> tuple[Tensor, NoState]:
        """See `Backbone`."""
        return self.features(tokens[:, :, : self.tokens.read + 1]), state

    def features(self, tokens: Tensor) -> Tensor:
        """Returns features `(..., d)` of the tokens `(..., read + 1, d)` of a step."""
        x = self.input(tokens.flatten(-2))
        for layer in self.layers:
            x = x + layer(x)
        out: Tensor = self.dropout(self.norm(x))
        return out

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> MLPDecoder:
        """Returns a decoder that sees the current step alone."""
        return MLPDecoder(self)


class MLPDecoder:
    """Decoding without a state.

    Args:
        backbone: In evaluation mode.
    """

    def __init__(self, backbone: MLP) -> None:
        self.backbone = backbone

    def reset(self, rows: Tensor, state: Any = None) -> None:
        """See `Decoder`; there is nothing to reset."""

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        return self.backbone.features(tokens[:, self.backbone.tokens.late :])
