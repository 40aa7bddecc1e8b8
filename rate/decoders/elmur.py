"""Decoding of ELMUR with a KV cache of the open segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from rate.batch import on_device

if TYPE_CHECKING:
    from rate.backbones.elmur import ELMUR, ELMURState, Layer


class ELMURDecoder:
    """Computes the token track step by step, and the memory track at the end of a segment.

    Within a segment memory does not change, so that keys, values and outputs of earlier tokens
    are final. Slots are those of the nK tokens, and a scratch slot for late tokens of a segment
    that is over.

    Args:
        backbone: In evaluation mode.
        batch_size: Rows.

    Attributes:
        state: The state before the open segment.
    """

    def __init__(self, backbone: ELMUR, batch_size: int) -> None:
        config, tokens = backbone.config, backbone.tokens
        self.backbone, self.length = backbone, config.context_length
        self.layers = cast("list[Layer]", list(backbone.layers))
        self.size = tokens.count * self.length  # nK; the scratch slot has this index
        weight = backbone.content_bias
        self.device = weight.device
        rows = (config.num_layers, batch_size)
        heads = weight.shape  # (H, d_head)
        self.keys_values = weight.new_zeros(2, *rows, self.size + 1, *heads)
        self.tables = weight.new_zeros(*rows, self.size, *heads)
        self.outputs = weight.new_zeros(*rows, self.size + 1, config.d_model)
        self.state: ELMURState = backbone.initial_state(batch_size)
        self.position = torch.zeros(batch_size, dtype=torch.int64)  # on the host; in the segment
        self.row = torch.arange(batch_size, device=self.device)
        self.offsets = torch.arange(-tokens.late, tokens.read + 1, device=self.device)

    def reset(self, rows: Tensor, state: Any = None) -> None:
        """See `Decoder`."""
        first = self.backbone.initial_state(len(self.row)) if state is None else state
        self.state = self.state.where(on_device(rows, self.device), first)
        self.position[rows] = 0
        self._begin_segment(on_device(rows.nonzero()[:, 0], self.device))

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        if bool((ended := self.position == self.length).any()):
            self._end_segment(on_device(ended.nonzero()[:, 0], self.device), tokens)
            self.position[ended] = 0
        count = self.backbone.tokens.count
        places = count * on_device(self.position, self.device)[:, None] + self.offsets  # (B, n)
        used = count * (int(self.position.max()) + 1)
        hidden = self._run(tokens, self.row, places, used)
        self.position += 1
        return hidden[:, -1]

    def _run(self, h: Tensor, rows: Tensor, places: Tensor, used: int) -> Tensor:
        """Runs the token track over new tokens.

        Args:
            h: `(b, n, d)`.
            rows: `(b,)` rows of the batch that they belong to.
            places: `(b, n)` their indices in the segment; below 0 is not in it.
            used: The slots in use.

        Returns:
            Outputs of the last layer `(b, n, d)`.
        """
        everyone = len(rows) == len(self.row)
        at = slice(None) if everyone else rows
        state = self.state if everyone else self.state.take(rows)
        slots = rows[:, None], torch.where(places < 0, self.size, places)
        key = torch.arange(used, device=self.device)
        # All slots up to a token's own have been written in this segment.
        mask = (key <= places[:, :, None])[:, None]  # (b, 1, n, used)
        back = (places[:, :, None] - key).clamp(min=0)[:, None]
        time = state.offset[:, None] + self.size - 1 - places  # see `ELMUR.forward`
        biases = (self.backbone.content_bias, self.backbone.position_bias)
        for index, layer in enumerate(self.layers):
            keys, values = self.keys_values[:, index]

            def attend(
                x: Tensor,
                layer: Layer = layer,
                keys: Tensor = keys,
                values: Tensor = values,
                table: Tensor = self.tables[index, at],
            ) -> Tensor:
                query, keys[slots], values[slots] = layer.attention.heads(x)
                heads = query, keys[at, :used], values[at, :used]
                return layer.attention.attend(heads, table, back, mask, biases)

            h = layer.run_tokens(h, attend, state.memory[index], state.position[index], time)
            self.outputs[index][slots] = h
        return h

    def _end_segment(self, rows: Tensor, tokens: Tensor) -> None:
        """Ends a segment of some rows `(b,)`: runs its late tokens, and the memory track."""
        late = self.backbone.tokens.late
        place = torch.arange(self.size, device=self.device).expand(len(rows), -1)
        if late:
            self._run(tokens[rows, :late], rows, place[:, -late:], self.size)
        state = self.state.take(rows)
        time = state.offset[:, None] + self.size - 1 - place
        parts = zip(self.layers, self.outputs, state.memory, state.position, strict=True)
        real = self.outputs.new_zeros(())
        written = [
            layer.run_memory(h[rows, : self.size], memory, position, time, real)
            for layer, h, memory, position in parts
        ]
        memory, position = zip(*written, strict=True)
        new = type(state)(memory, position, state.offset + self.size)
        self.state = self.state.put(rows, new)
        self._begin_segment(rows)

    def _begin_segment(self, rows: Tensor) -> None:
        """Computes the tables of distances of some rows `(b,)`, whose offset has changed."""
        offset = self.state.offset[rows]
        for table, layer in zip(self.tables, self.layers, strict=True):
            table[rows] = layer.attention.distance_table(offset, self.size)
