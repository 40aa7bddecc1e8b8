"""What decoders of transformers share: a stack of blocks over a KV cache."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rate.nn.kv_cache import KVCache

if TYPE_CHECKING:
    from rate.backbones.transformer import Transformer

# Position of keys that are not on the time axis: farther from every query than the table reaches.
OFF_TIME_AXIS = -(2**30)


class TransformerDecoder:
    """Autoregressive decoding with a KV cache of one slot per token, and a scratch slot.

    The scratch slot takes tokens that no query attends to: the "previous action" of a row at its
    first step. Slots fill up from the front, and a step attends to no more of them than are in use.
    The position of each row is on the host, since control flow depends on it: to read it from a GPU
    would be to wait for the GPU.

    Args:
        backbone: In evaluation mode.
        batch_size: Rows.
        num_slots: Slots, including the scratch slot.
        reach: See `KVCache`.

    Attributes:
        key_position: `(B, slots)` int64 or `(1, slots)`, positions of the cached keys; see
            `KVCache.context`.
    """

    key_position: Tensor

    def __init__(
        self, backbone: Transformer[Any], batch_size: int, num_slots: int, reach: int
    ) -> None:
        tokens = backbone.tokens
        self.batch_size, self.device = batch_size, next(backbone.parameters()).device
        self.blocks, self.late, self.run_layers = backbone.layers, tokens.late, backbone.run_layers
        attentions = [block.attention for block in self.blocks]
        self.kv_cache = KVCache(attentions, batch_size, num_slots, reach)
        # Positions of the new tokens relative to the first token of their step; the late tokens of
        # the previous step come first.
        self.offsets = torch.arange(-tokens.late, tokens.read + 1, device=self.device)
        self.row = torch.arange(batch_size, device=self.device)

    def _forward(
        self, x: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, mask: Tensor, last: int
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Runs the blocks over new tokens, whose keys and values enter the KV cache.

        Args:
            x: `(b, n, d)` new tokens.
            rows: `(b,)` rows of the batch that they belong to.
            slots: `(b, n)` slots for their keys and values.
            positions: `(b, n)` their positions on the time axis.
            mask: `(b, n, used)` bool attention mask over the slots in use.
            last: Number of tokens, counted from the last, whose outputs are used.

        Returns:
            Normalised outputs `(b, last, d)`, and every layer's inputs and outputs.
        """
        context = self.kv_cache.context(rows, slots, positions, mask, self.key_position)
        inputs, outputs = [], []

        def run(index: int, x: Tensor) -> Tensor:
            x = self._enter(index, x, rows)
            inputs.append(x)
            is_last = index == len(self.blocks) - 1 and last < x.shape[1]
            attended = context.of_last(last) if is_last else context
            x = self.blocks[index](x, partial(self.kv_cache.attend, index, attended))
            outputs.append(x)
            return x

        return self.run_layers(x, run, lambda x: x[:, -last:])[0], inputs, outputs

    def _enter(self, index: int, x: Tensor, rows: Tensor) -> Tensor:
        """The tokens `(b, n, d)` of some rows as layer `index` has them."""
        return x
