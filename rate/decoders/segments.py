"""Decoding of transformers that carry memory from segment to segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rate.batch import on_device
from rate.decoders.transformer import OFF_TIME_AXIS, TransformerDecoder

if TYPE_CHECKING:
    from rate.backbones.segment_transformer import SegmentState, SegmentTransformer


class SegmentDecoder(TransformerDecoder):
    """Decodes a transformer that passes a `SegmentState` from segment to segment.

    Slots of the KV cache: `[read | cache | scratch | nK step tokens | write]`.

    Attributes:
        state: The state before the open segment.
    """

    def __init__(self, backbone: SegmentTransformer, batch_size: int) -> None:
        config = backbone.config
        self.backbone, self.length = backbone, config.context_length
        self.steps = backbone.tokens.count * config.context_length
        self.memory, self.cached_tokens = config.num_memory_tokens, config.cache_length
        self.read = slice(0, self.memory * (1 + config.cached_memories))
        self.scratch = self.read.stop + config.cache_length
        self.cached, self.start = slice(self.read.stop, self.scratch), self.scratch + 1
        self.write = slice(self.start + self.steps, self.start + self.steps + self.memory)
        reach = config.cache_length + self.steps + self.memory
        super().__init__(backbone, batch_size, self.write.stop, reach)
        self.key_position = torch.arange(self.write.stop, device=self.device)[None] - self.start
        self.key_position[:, self.cached] += 1  # as if there were no scratch slot
        self.key_position[:, self.read] = self.key_position[:, self.write] = OFF_TIME_AXIS
        # Read, step and write tokens have been cached whenever a mask lets queries attend to them.
        self.key_valid = torch.ones(
            (batch_size, self.write.stop), dtype=torch.bool, device=self.device
        )
        self.key_valid[:, self.scratch] = False
        self.inputs: Tensor | None = None
        if config.cache_length:  # the first place is the scratch slot
            shape = (config.num_layers, batch_size, 1 + self.steps, config.d_model)
            self.inputs = self.kv_cache.buffer.new_zeros(shape)
        self.state = backbone.initial_state(batch_size)
        self.position = torch.zeros(batch_size, dtype=torch.int64)  # on the host; in the segment

    def reset(self, rows: Tensor, state: SegmentState | None = None) -> None:
        """See `Decoder`."""
        first = self.backbone.initial_state(self.batch_size) if state is None else state
        self.state = self.state.where(on_device(rows, self.device), first)
        self._begin_segment(rows)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        furthest = int(self.position.max())
        if furthest == self.length:
            ended = self.position == self.length
            self._end_segment(ended, tokens)
            self._begin_segment(ended)
            furthest = int(self.position.max())
        count = self.backbone.tokens.count
        positions = count * on_device(self.position, self.device)[:, None] + self.offsets
        slots = self._slots(positions)
        used = self.start + count * (furthest + 1)
        mask = self._causal(positions, used) & self.key_valid[:, None, :used]  # (B, n, used)
        hidden, inputs, _ = self._forward(tokens, self.row, slots, positions, mask, last=1)
        self._store(inputs, self.row, slots)
        self.position += 1
        return hidden[:, -1]

    def _slots(self, positions: Tensor) -> Tensor:
        """The slots of step tokens; those of an earlier segment go into the scratch slot."""
        return torch.where(positions < 0, self.scratch, self.start + positions)

    def _causal(self, positions: Tensor, used: int) -> Tensor:
        """The causal mask `(b, n, used)` of queries at `positions` `(b, n)` over the first slots.

        It is True for all memory tokens, which are not on the time axis.
        """
        return self.key_position[:, None, :used] <= positions[:, :, None]

    def _end_segment(self, ended: Tensor, tokens: Tensor) -> None:
        """Ends a segment: runs its late tokens and its write tokens, and advances the state."""
        rows, late = self._index(ended), self.late
        count, state = rows.shape[0], self.state.take(rows)
        x = tokens[rows, :late]
        if state.memory is not None:
            x = torch.cat((x, self.backbone.write_tokens(state.memory)), dim=1)
        positions = torch.arange(self.steps - late, self.steps + self.memory, device=self.device)
        positions = positions.expand(count, -1)
        slots = self.start + positions
        mask = self._causal(positions, self.write.stop) & self.key_valid[rows][:, None]
        # Write tokens attend to each other and not to the cache; step tokens to none of them.
        mask[:, :late, self.write] = False
        mask[:, late:, self.cached] = False
        last = max(1, self.memory)
        hidden, inputs, outputs = self._forward(x, rows, slots, positions, mask, last)
        self._store([layer[:, :late] for layer in inputs], rows, slots[:, :late])
        real = self.key_valid.new_ones(count, self.length)
        inputs = [] if self.inputs is None else [layer[rows, 1:] for layer in self.inputs]
        outputs = [layer[:, -last:] for layer in outputs]
        state = self.backbone.advance(state, hidden, inputs, real, outputs)
        self.state = self.state.put(rows, state)

    def _begin_segment(self, begun: Tensor) -> None:
        """Begins a segment: caches keys and values of its cached states and its read tokens."""
        rows = self._index(begun)
        state, count = self.state.take(rows), rows.shape[0]
        self.position[begun] = 0
        if state.cache is not None and state.cached is not None:
            newest_first = torch.arange(self.cached_tokens, 0, -1, device=self.device)
            self.key_valid[rows, self.cached] = newest_first <= state.cached[:, None]
            for index, block in enumerate(self.blocks):
                cache = block.attention_norm(state.cache[:, index])
                self.kv_cache.fill(index, rows, self.cached, cache)
        if state.memory is not None:
            tokens = self.backbone.read_tokens(state.memory, state.memories)
            slots = torch.arange(self.read.start, self.read.stop, device=self.device)
            slots = slots.expand(count, -1)
            mask = self.key_valid.new_ones(count, self.read.stop, self.read.stop)
            self._forward(tokens, rows, slots, torch.zeros_like(slots), mask, last=1)

    def _enter(self, index: int, x: Tensor, rows: Tensor) -> Tensor:
        """See `TransformerDecoder`: what the tokens read from an associative memory."""
        if (association := self.state.association) is None:
            return x
        matrix, normaliser = (part[rows] for part in association)
        return self.backbone.read_association(index, x, (matrix, normaliser))

    def _index(self, chosen: Tensor) -> Tensor:
        """The indices, on the device, of the rows `(B,)` bool on the CPU that are True."""
        return on_device(chosen.nonzero()[:, 0], self.device)

    def _store(self, inputs: list[Tensor], rows: Tensor, slots: Tensor) -> None:
        """Stores the inputs of each layer, of which `advance` makes the next segment's cache."""
        if self.inputs is None:
            return
        for buffer, layer in zip(self.inputs, inputs, strict=True):
            buffer[rows[:, None], slots - self.scratch] = layer
