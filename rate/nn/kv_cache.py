"""A KV cache: buffers of keys and values, and attention of new tokens over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rate.nn.attention import Attention
from rate.nn.layout import masked_bias


@dataclass(frozen=True)
class Look:
    """What new tokens look at: the same in every layer.

    Attributes:
        rows: `(b,)` the rows of the batch they belong to, or every row.
        place: Where their keys and values are kept, as an index of a layer's buffer.
        used: How many slots are in use.
        mask: `(b, 1, n, used)`, added to scores: 0 for the slots that each may look at.
        column: `(b, 1, n, used)`, the column of the distance table for each token and slot; None
            where distances have no say.
    """

    rows: Tensor | slice
    place: Any
    used: int
    mask: Tensor
    column: Tensor | None

    def of_last(self, count: int) -> Look:
        """That of the last tokens alone."""
        column = None if self.column is None else self.column[:, :, -count:]
        return replace(self, mask=self.mask[:, :, -count:], column=column)


class KVCache:
    """Keys and values of every layer, `(layers, 2, B, H, slots, d_head)`.

    Args:
        layers: The attention of every layer, alike in shape.
        batch_size: Rows.
        num_slots: Tokens whose keys and values are kept.
        reach: Distances that keys are seen from: less than this.
    """

    def __init__(
        self, layers: Sequence[Attention], batch_size: int, num_slots: int, reach: int
    ) -> None:
        first = layers[0]
        weight = first.qkv.weight
        self.layers, self.batch_size, self.reach = layers, batch_size, reach
        heads = (first.num_heads, num_slots, first.d_head)
        self.kept = weight.new_zeros((len(layers), 2, batch_size, *heads))
        self.tables: list[Tensor | None] = [None] * len(layers)
        if first.relative:
            with torch.no_grad():  # the weights stand still while a decoder lives
                tables = [layer.distance_table(reach, weight.device) for layer in layers]
            # Column 0 is that of whatever is further away.
            self.tables = [F.pad(table, (0, 0, 1, 0)) for table in tables]

    def look(
        self, rows: Tensor, slots: Tensor, positions: Tensor, allowed: Tensor, keys: Tensor
    ) -> Look:
        """What new tokens look at.

        Args:
            rows: `(b,)` the rows of the batch they belong to.
            slots: `(b, n)` where to keep their keys and values.
            positions: `(b, n)` their places on the time axis.
            allowed: `(b, n, used)` bool, the slots each may look at, of those in use.
            keys: `(B, slots)` int64, the places of kept tokens on the time axis; `(1, slots)` where
                they are the same in all rows, as they must be to look from some rows alone.
        """
        used, everyone = allowed.shape[-1], len(rows) == self.batch_size
        column = None
        if self.tables[0] is not None:
            distance = positions[:, :, None] - keys[:, None, :used]
            column = (self.reach - distance).clamp(0, self.reach)[:, None]
        mask = masked_bias(self.kept.new_zeros(()), allowed)[:, None]
        place = slice(None), rows[:, None], slice(None), slots
        return Look(slice(None) if everyone else rows, place, used, mask, column)

    def attend(self, index: int, look: Look, y: Tensor) -> Tensor:
        """Attention of layer `index`: keep the keys and values of `y`, then look at them all.

        The last tokens of `y` `(b, n, d)` look, as many as there are in `look`.
        """
        attention, table = self.layers[index], self.tables[index]
        heads = attention.heads(y)  # (b, n, 3, H, d_head)
        kept = self.kept[index]
        kept[look.place] = heads[:, :, 1:]
        keys, values = kept[:, look.rows, :, : look.used]
        queries = heads[:, -look.mask.shape[2] :, 0].transpose(1, 2)
        biases = [look.mask]
        if table is not None and look.column is not None:
            scores = attention.distance_scores(queries, table)
            biases.append(scores.gather(3, look.column.expand(-1, scores.shape[1], -1, -1)))
        return attention.attend(queries, keys, values, *biases)

    def fill(self, index: int, rows: Tensor, slots: slice, cache: Tensor) -> None:
        """Put the keys and values of cached states `(b, C, d)` into slots of some rows."""
        keys, values = self.layers[index].project_cache(cache)
        self.kept[index, 0, rows, :, slots] = keys
        self.kept[index, 1, rows, :, slots] = values
