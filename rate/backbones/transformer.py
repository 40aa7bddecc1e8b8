"""What the transformers share: their stack of blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rate.backbones.base import Backbone, RunSegment, S
from rate.backbones.settings import TransformerConfig
from rate.nn.blocks import BLOCKS, Block, BlockSize
from rate.nn.layout import Layout
from rate.tokenizers import StepTokens


class Transformer(Backbone[S]):
    """A stack of blocks over the tokens of a segment.

    Attributes:
        blocks: The blocks, first to last.
        norm: What normalises the stream after the last of them, where they have not.
    """

    Config = TransformerConfig
    config: TransformerConfig

    def __init__(self, config: TransformerConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        kind, size = BLOCKS[config.block], block_size(config)
        self.blocks = nn.ModuleList(Block(kind, size) for _ in range(config.num_layers))
        if kind.init is not None:
            self.blocks.apply(kind.init)
        self.norm = nn.LayerNorm(config.d_model) if kind.norm_first else nn.Identity()

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast("list[Block]", list(self.blocks))

    def forward(self, tokens: Tensor, mask: Tensor, state: S) -> tuple[Tensor, S]:
        """See `Backbone`."""
        return self.forward_segment(tokens, mask, state, self.layout(mask, state))

    def layout(self, mask: Tensor, state: S) -> Layout:
        """The attention mask of a segment."""
        raise NotImplementedError

    def forward_segment(
        self, tokens: Tensor, mask: Tensor, state: S, layout: Layout
    ) -> tuple[Tensor, S]:
        """`forward` under an attention mask that has been made."""
        raise NotImplementedError

    def compiled(self, backend: str | Callable[..., Any]) -> RunSegment[S]:
        """See `Backbone`. Masks, which are kept from call to call, are made outside."""
        program = torch.compile(self.forward_segment, backend=backend, dynamic=False)
        return lambda tokens, mask, state: program(tokens, mask, state, self.layout(mask, state))

    def attend(self, index: int, x: Tensor, cache: Tensor | None, layout: Layout) -> Tensor:
        """Block `index` over a whole segment's stream `(B, tokens, d)` and a cache `(B, C, d)`.

        Of the last block nothing else is read but the tokens at which actions are predicted and
        the write tokens: it answers for these alone.
        """
        block = self.layers[index]
        cached = None if cache is None else block.attention_norm(cache)
        if index < len(self.blocks) - 1:
            return cast("Tensor", block(x, lambda y: block.attention(y, cached, layout)))
        read = slice(self.tokens.read, None, self.tokens.count)
        out: Tensor = block(
            x,
            lambda y: block.attention(y, cached, layout, read),
            lambda x: layout.queries(x, read),
        )
        return out


def block_size(config: TransformerConfig) -> BlockSize:
    """The widths of a block and what it drops."""
    return BlockSize(
        config.d_model,
        config.num_heads,
        config.head_width,
        0 if config.skip_ffn else config.ff_width,
        swiglu=config.feed_forward == "swiglu",
        relative=config.position == "relative",
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )
