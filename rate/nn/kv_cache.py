"""The KV cache of autoregressive decoding: keys and values of past tokens, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rate.nn.attention import Attention
from rate.nn.attention_mask import masked_bias


@dataclass(frozen=True)
class AttentionContext:
    """What new tokens attend to. It is the same in every layer.

    Attributes:
        rows: `(b,)` rows of the batch that the new tokens belong to, or every row.
        place: Index of their keys and values in a layer's buffer.
        used: Number of slots in use.
        mask: `(b, 1, n, used)` additive attention mask.
        column: `(b, 1, n, used)` column of the distance table for each token and slot; None where
            attention has no relative positions.
    """

    rows: Tensor | slice
    place: Any
    used: int
    mask: Tensor
    column: Tensor | None

    def of_last(self, count: int) -> AttentionContext:
        """The context of the last `count` tokens alone."""
        column = None if self.column is None else self.column[:, :, -count:]
        return replace(self, mask=self.mask[:, :, -count:], column=column)


class KVCache:
    """A KV cache: keys and values of every layer, `(layers, 2, B, H, slots, d_head)`.

    Args:
        layers: The attention of every layer, alike in shape.
        batch_size: Rows.
        num_slots: Slots of a row. A slot holds the key and the value of one token.
        reach: One more than the largest distance from a query to a key.
    """

    def __init__(
        self, layers: Sequence[Attention], batch_size: int, num_slots: int, reach: int
    ) -> None:
        first = layers[0]
        weight = first.qkv.weight
        self.layers, self.batch_size, self.reach = layers, batch_size, reach
        heads = (first.num_heads, num_slots, first.d_head)
        self.buffer = weight.new_zeros((len(layers), 2, batch_size, *heads))
        self.tables: list[Tensor | None] = [None] * len(layers)
        if first.relative:
            with torch.no_grad():  # the weights do not change while a decoder lives
                tables = [layer.distance_table(reach, weight.device) for layer in layers]
            # Column 0 is for keys that are farther away, or not on the time axis.
            self.tables = [F.pad(table, (0, 0, 1, 0)) for table in tables]

    def context(
        self, rows: Tensor, slots: Tensor, positions: Tensor, mask: Tensor, keys: Tensor
    ) -> AttentionContext:
        """The context of new tokens.

        Args:
            rows: `(b,)` rows of the batch that they belong to.
            slots: `(b, n)` slots for their keys and values.
            positions: `(b, n)` their positions on the time axis.
            mask: `(b, n, used)` bool attention mask over the slots in use.
            keys: `(B, slots)` int64 positions of the cached keys; `(1, slots)` where they are the
                same in all rows, which attention from some rows alone requires.
        """
        used, everyone = mask.shape[-1], len(rows) == self.batch_size
        column = None
        if self.tables[0] is not None:
            distance = positions[:, :, None] - keys[:, None, :used]  # (b, n, used)
            column = (self.reach - distance).clamp(0, self.reach)[:, None]
        bias = masked_bias(self.buffer.new_zeros(()), mask)[:, None]  # (b, 1, n, used)
        place = slice(None), rows[:, None], slice(None), slots
        return AttentionContext(slice(None) if everyone else rows, place, used, bias, column)

    def attend(self, index: int, context: AttentionContext, y: Tensor) -> Tensor:
        """Attention of layer `index`: caches the keys and values of `y`, then attends to them all.

        Args:
            index: Number of the layer.
            context: What the tokens attend to. It may be that of the last tokens alone.
            y: `(b, n, d)` inputs of the new tokens.

        Returns:
            `(b, q, d)` for the q tokens of the context.
        """
        attention, table = self.layers[index], self.tables[index]
        heads = attention.heads(y)  # (b, n, 3, H, d_head)
        layer = self.buffer[index]  # (2, B, H, slots, d_head)
        layer[context.place] = heads[:, :, 1:]
        keys, values = layer[:, context.rows, :, : context.used]  # (b, H, used, d_head) each
        queries = heads[:, -context.mask.shape[2] :, 0].transpose(1, 2)  # (b, H, q, d_head)
        biases = [context.mask]
        if table is not None and context.column is not None:
            scores = attention.distance_scores(queries, table)  # (b, H, q, 1 + reach)
            biases.append(scores.gather(3, context.column.expand(-1, scores.shape[1], -1, -1)))
        return attention.attend(queries, keys, values, *biases)

    def fill(self, index: int, rows: Tensor, slots: slice, cache: Tensor) -> None:
        """Caches the keys and values of hidden states `(b, C, d)` of earlier segments."""
        keys, values = self.layers[index].project_cache(cache)
        self.buffer[index, 0, rows, :, slots] = keys
        self.buffer[index, 1, rows, :, slots] = values
