"""The stack of blocks that all transformers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rate.backbones.base import Backbone, Losses, RunSegment, S
from rate.backbones.settings import TransformerConfig
from rate.nn.adaptive_span import AdaptiveSpan
from rate.nn.attention_mask import SegmentMask
from rate.nn.blocks import BLOCKS, Block, BlockSize
from rate.nn.halting import Halting
from rate.nn.positions import sinusoidal_embedding
from rate.tokenizers import StepTokens


class Transformer(Backbone[S]):
    """A stack of blocks over the tokens of a segment.

    Attributes:
        blocks: The blocks, first to last; a single one if all layers are the same.
        depth: `(L, d)` embedding of the depth of layers that are the same block, or None.
        halting: Tells when a token has been through enough layers, or None.
        norm: Normalises the residual stream after the last block, where the blocks do not.
    """

    Config = TransformerConfig
    config: TransformerConfig
    depth: Tensor | None

    def __init__(self, config: TransformerConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        kind, size = BLOCKS[config.block], block_size(config)
        count = 1 if config.tie_layers else config.num_layers
        self.blocks = nn.ModuleList(Block(kind, size) for _ in range(count))
        if kind.init is not None:
            self.blocks.apply(kind.init)
        self.norm = nn.LayerNorm(config.d_model) if kind.norm_first else nn.Identity()
        depth = torch.arange(config.num_layers) if config.tie_layers else None
        table = None if depth is None else sinusoidal_embedding(depth, config.d_model)
        self.register_buffer("depth", table, persistent=False)
        halts = config.adaptive_depth
        self.halting = Halting(config.d_model, config.halting_threshold) if halts else None

    @property
    def layers(self) -> list[Block]:
        """The blocks of the layers, first to last."""
        blocks = cast("list[Block]", list(self.blocks))
        return blocks * self.config.num_layers if self.config.tie_layers else blocks

    @property
    def separate_layers(self) -> list[nn.Module]:
        """See `Backbone`. The losses read adaptive spans after the last layer."""
        return [] if self._spans() else list(self.blocks)

    def forward(self, tokens: Tensor, mask: Tensor, state: S) -> tuple[Tensor, S]:
        """See `Backbone`."""
        features, state, _ = self.forward_with_losses(tokens, mask, state)
        return features, state

    def forward_with_losses(
        self, tokens: Tensor, mask: Tensor, state: S
    ) -> tuple[Tensor, S, Losses]:
        """See `Backbone`. Losses: `ponder` with an adaptive depth, `span` with adaptive spans."""
        return self.forward_segment(tokens, mask, state, self.segment_mask(mask, state))

    def after_step(self) -> None:
        """See `Backbone`."""
        for span in self._spans():
            span.clamp()

    def _spans(self) -> list[AdaptiveSpan]:
        """The adaptive spans of all layers."""
        return [block.attention.span for block in self.layers if block.attention.span is not None]

    def segment_mask(self, mask: Tensor, state: S) -> SegmentMask:
        """The attention mask of a segment, from its padding mask `(B, K)` and the state."""
        raise NotImplementedError

    def forward_segment(
        self, tokens: Tensor, mask: Tensor, state: S, segment_mask: SegmentMask
    ) -> tuple[Tensor, S, Losses]:
        """`forward_with_losses` under the attention mask that `segment_mask` returned."""
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
        block, is_last = self.layers[index], index == self.config.num_layers - 1

        def attend(y: Tensor) -> Tensor:  # in the block's `forward`, see `separate_layers`
            cached = None if cache is None else block.attention_norm(cache)
            read = self.read if is_last else None
            out: Tensor = block.attention(y, cached, segment_mask, read)
            return out

        if not is_last:
            return cast("Tensor", block(x, attend))
        out: Tensor = block(x, attend, lambda x: segment_mask.select_queries(x, self.read))
        return out

    @property
    def read(self) -> slice:
        """The step tokens whose features the head reads."""
        return slice(self.tokens.read, None, self.tokens.count)

    def run_layers(
        self, x: Tensor, run: Callable[[int, Tensor], Tensor], select: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Applies all layers, whatever keys their tokens attend to.

        Args:
            x: `(B, T, d)` tokens.
            run: Applies layer i to `(B, T, d)`. The last may return q of the tokens alone.
            select: Selects these among `(B, T, n)`.

        Returns:
            Normalised outputs `(B, q, d)`, and the ponder cost `(B, T)` of the tokens, or None.
        """
        ponder, output, last = None, None, self.config.num_layers - 1
        for index in range(self.config.num_layers):
            if self.depth is not None:
                x = x + self.depth[index].to(x.dtype)
            if self.halting is None:
                x = run(index, x)
                continue
            weight, ponder = self.halting(x, ponder)
            x = run(index, x)
            if index == last:
                weight, output = select(weight), None if output is None else select(output)
            output = weight * x if output is None else weight * x + (1 - weight) * output
        x = self.norm(x if output is None else output)
        return x, None if ponder is None else ponder.cost

    def losses(self, cost: Tensor | None, mask: Tensor) -> Losses:
        """The auxiliary losses of a segment.

        Args:
            cost: Ponder cost `(B, nK)` of its step tokens, or None.
            mask: `(B, K)` padding mask.
        """
        losses, config = {}, self.config
        if cost is not None:
            of_steps = cost.reshape(*mask.shape, -1).mean(-1)  # (B, K)
            losses["ponder"] = config.ponder_weight * of_steps
        if spans := self._spans():
            tokens = torch.stack([span.longest * span.share.mean() for span in spans]).sum()
            losses["span"] = (config.span_weight * tokens).expand(mask.shape)
        return losses


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
        span=config.span,
        span_ramp=config.span_ramp,
        persistent=config.persistent_vectors,
    )
