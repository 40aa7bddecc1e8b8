"""What decoders of transformers share: a KV cache under a stack of blocks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rate.nn.kv_cache import KVCache

if TYPE_CHECKING:
    from rate.backbones.transformer import Transformer

# Of keys that stand outside time, for whom distance has no say: further than anything reaches.
OUTSIDE = -(2**30)


class TransformerDecoder:
    """A KV cache with one slot per token that is kept, and one, the bin, for those that are not.

    The bin takes a row's "previous action" before its first step. Slots fill up from the front, and
    a step looks at no more of them than are in use. Where each row stands is known on the host:
    what a step has to do follows from it, and to ask a GPU would be to wait for it.

    Args:
        backbone: In evaluation mode.
        batch_size: Rows.
        num_slots: Slots, with the bin.
        reach: See `KVCache`.

    Attributes:
        key_position: `(B, slots)` int64 or `(1, slots)`, see `KVCache.look`.
    """

    key_position: Tensor

    def __init__(
        self, backbone: Transformer[Any], batch_size: int, num_slots: int, reach: int
    ) -> None:
        tokens = backbone.tokens
        self.batch_size, self.device = batch_size, next(backbone.parameters()).device
        self.blocks, self.norm, self.late = backbone.layers, backbone.norm, tokens.late
        attentions = [block.attention for block in self.blocks]
        self.cache = KVCache(attentions, batch_size, num_slots, reach)
        # Where the tokens of a step stand, the late ones of the step before first, counted from
        # the first token of the step.
        self.offsets = torch.arange(-tokens.late, tokens.read + 1, device=self.device)
        self.row = torch.arange(batch_size, device=self.device)

    def _forward(
        self, x: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, allowed: Tensor, last: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the blocks over new tokens.

        Args:
            x: `(b, n, d)` new tokens.
            rows: `(b,)` the rows of the batch they belong to.
            slots: `(b, n)` where to keep their keys and values.
            positions: `(b, n)` their places on the time axis.
            allowed: `(b, n, used)` bool, the slots each may look at, of those in use.
            last: How many of the tokens, counted from the last, have an output that matters.

        Returns:
            Normalised outputs `(b, last, d)`, and every layer's inputs.
        """
        look = self.cache.look(rows, slots, positions, allowed, self.key_position)
        inputs = []
        for index, block in enumerate(self.blocks):
            inputs.append(x)
            if index == len(self.blocks) - 1 and last < x.shape[1]:
                look = look.of_last(last)
            x = block(x, partial(self.cache.attend, index, look))
        return self.norm(x), inputs
