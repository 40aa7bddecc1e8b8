"""Decision Transformer (Chen et al. 2021): a transformer over a sliding window of K steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rate.backbones.base import Losses
from rate.backbones.settings import WindowTransformerConfig
from rate.backbones.transformer import Transformer
from rate.decoders.base import Decoder
from rate.decoders.window import WindowDecoder
from rate.nn.attention_mask import SegmentMask, geometry_mask
from rate.state import State


@dataclass(frozen=True)
class NoState(State):
    """The state of a backbone that carries nothing from segment to segment."""


class WindowTransformer(Transformer[NoState]):
    """A transformer in which every step attends to the last K steps; it carries no state.

    A batch is one forward pass under a banded causal attention mask: every layer reaches K steps
    back.
    """

    Config = WindowTransformerConfig
    config: WindowTransformerConfig

    def initial_state(self, batch_size: int) -> NoState:
        """The empty state."""
        return NoState()

    def forward_segment(
        self, tokens: Tensor, mask: Tensor, state: NoState, segment_mask: SegmentMask
    ) -> tuple[Tensor, NoState, Losses]:
        """Features `(B, T, d)` of tokens `(B, T, n, d)`."""
        features, cost = self.run_layers(  # (B, T, d): `run_block` selects the tokens that are read
            tokens.flatten(1, 2),  # (B, nT, d)
            lambda index, x: self.run_block(index, x, None, segment_mask),
            lambda x: segment_mask.select_queries(x, self.read),
        )
        return features, state, self.losses(cost, mask)

    def segment_mask(self, mask: Tensor, state: NoState) -> SegmentMask:
        """The attention mask: a step attends to the last K real steps, itself among them."""
        count = self.tokens.count
        steps = count * mask.shape[1]
        banded = geometry_mask(0, steps, 0, count, self.config.context_length, mask.device)
        real = mask.repeat_interleave(count, dim=1)  # (B, nT)
        return SegmentMask(0, steps, 0, 0, banded & real[:, None, None, :])  # (B, 1, nT, nT)

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> Decoder:
        """A decoder with a KV cache.

        Args:
            batch_size: Rows decoded side by side.
            exact: Past K steps, True computes the window again at every step, as Decision
                Transformer does. False keeps the KV cache of the last K steps, which was computed
                when earlier steps were still in the window: the same as one long forward pass in
                which every layer reaches K steps back, and far cheaper.
        """
        return WindowDecoder(self, batch_size, exact=exact)
