"""Decision Transformer (Chen et al. 2021): a transformer that looks back over the last K steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rate.backbones.settings import WindowTransformerConfig
from rate.backbones.transformer import Transformer
from rate.decoders.base import Decoder
from rate.decoders.window import WindowDecoder
from rate.nn.layout import Layout, visibility
from rate.state import State


@dataclass(frozen=True)
class NoState(State):
    """Nothing is carried."""


class WindowTransformer(Transformer[NoState]):
    """A transformer in which every step sees the last K and nothing is carried.

    A batch is one pass, in which every layer looks back K steps.
    """

    Config = WindowTransformerConfig
    config: WindowTransformerConfig

    def initial_state(self, batch_size: int) -> NoState:
        """None."""
        return NoState()

    def forward_segment(
        self, tokens: Tensor, mask: Tensor, state: NoState, layout: Layout
    ) -> tuple[Tensor, NoState]:
        """Features `(B, T, d)` of tokens `(B, T, n, d)`."""
        x = tokens.flatten(1, 2)  # (B, nT, d)
        for index in range(len(self.blocks)):
            x = self.attend(index, x, None, layout)
        return self.norm(x), state  # (B, T, d): of the last block only what is read

    def layout(self, mask: Tensor, state: NoState) -> Layout:
        """The attention mask: a step sees the last K real steps, itself among them."""
        count = self.tokens.count
        steps = count * mask.shape[1]
        allowed = visibility(0, steps, 0, count, self.config.context_length, mask.device)
        real = mask.repeat_interleave(count, dim=1)  # (B, nT)
        return Layout(0, steps, 0, 0, allowed & real[:, None, None, :])

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> Decoder:
        """One that keeps keys and values.

        Args:
            batch_size: Rows decoded side by side.
            exact: Past K steps, True computes the window again at every step, as Decision
                Transformer does. False keeps the keys of the last K steps, which were computed when
                earlier steps were still in view: the same as one long forward pass in which every
                layer looks back K steps, and far cheaper.
        """
        return WindowDecoder(self, batch_size, exact=exact)
