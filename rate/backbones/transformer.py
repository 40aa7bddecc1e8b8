"""The stack of blocks that all transformers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rate.backbones.base import Backbone, RunSegment, S
from rate.backbones.settings import TransformerConfig
from rate.nn.attention_mask import SegmentMask
from rate.nn.blocks import BLOCKS, Block, BlockSize
from rate.tokenizers import StepTokens


class Transformer(Backbone[S]):
    """A stack of blocks over the tokens of a segment.

    Attributes:
        blocks: The blocks, first to last.
        norm: Normalises the residual stream after the last block, where the blocks do not.
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
        return self.forward_segment(tokens, mask, state, self.segment_mask(mask, state))

    def segment_mask(self, mask: Tensor, state: S) -> SegmentMask:
        """The attention mask of a segment, from its padding mask `(B, K)` and the state."""
        raise NotImplementedError

    def forward_segment(
        self, tokens: Tensor, mask: Tensor, state: S, segment_mask: SegmentMask
    ) -> tuple[Tensor, S]:
        """`forward` under the attention mask that `segment_mask` returned."""
        raise NotImplementedError

    def compiled(self, backend: str | Callable[..., Any]) -> RunSegment[S]:
        """See `Backbone`. Attention masks, which are cached, are made outside of the program."""
        program = torch.compile(self.forward_segment, backend=backend, dynamic=False)
        return lambda tokens, mask, state: program(
            tokens, mask, state, self.segment_mask(mask, state)
        )

    def run_block(
        self, index: int, x: Tensor, cache: Tensor | None, segment_mask: SegmentMask
    ) -> Tensor:
        """Block `index` over a segment's residual stream `(B, tokens, d)` and a cache `(B, C, d)`.

        The outputs of the last block are used at the write tokens and at the tokens from which
        actions are predicted, so that it computes these alone: `(B, K + m, d)`.
        """
        block = self.layers[index]
        cached = None if cache is None else block.attention_norm(cache)
        if index < len(self.blocks) - 1:
            return cast("Tensor", block(x, lambda y: block.attention(y, cached, segment_mask)))
        read = slice(self.tokens.read, None, self.tokens.count)
        out: Tensor = block(
            x,
            lambda y: block.attention(y, cached, segment_mask, read),
            lambda x: segment_mask.select_queries(x, read),
        )
        return out


def block_size(config: TransformerConfig) -> BlockSize:
    """The widths and dropout rates of a block."""
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
