"""Decoding of models that carry memory from segment to segment."""

from __future__ import annotations

import torch
from torch import Tensor

from rate.batch import on_device
from rate.decoders.base import OUTSIDE, Decoder
from rate.embeddings import TOKENS_PER_STEP
from rate.model import SequenceModel


class SegmentDecoder(Decoder):
    """Decodes a model that hands a `MemoryState` from segment to segment.

    Slots: `[read | cache | bin | 3K step tokens | write]`. So the bin is where a token at position
    -1 goes by itself.
    """

    def __init__(self, model: SequenceModel, batch_size: int) -> None:
        config = model.config
        self.steps = TOKENS_PER_STEP * config.context_length
        self.cache, self.memory = config.cache_length, config.num_memory_tokens
        self.read, self.bin = slice(0, self.memory), self.memory + self.cache
        self.cached, self.start = slice(self.memory, self.bin), self.bin + 1
        self.write = slice(self.start + self.steps, self.start + self.steps + self.memory)
        reach = self.cache + self.steps + self.memory
        super().__init__(model, batch_size, self.write.stop, reach)
        self.key_position = torch.arange(self.write.stop, device=self.device)[None] - self.start
        self.key_position[:, self.cached] += 1  # as if there were no bin
        self.key_position[:, self.read] = self.key_position[:, self.write] = OUTSIDE
        # Read, step and write tokens are there whenever somebody looks at them.
        self.key_valid = torch.ones(
            (batch_size, self.write.stop), dtype=torch.bool, device=self.device
        )
        self.key_valid[:, self.bin] = False
        self.inputs: Tensor | None = None
        if self.cache:  # the first place is the bin
            shape = (config.num_layers, batch_size, 1 + self.steps, config.d_model)
            self.inputs = self.remembered.new_zeros(shape)
        self.state = model.initial_state(batch_size)
        self.position = torch.zeros(batch_size, dtype=torch.int64)  # on the host; in the segment
        self.reset()

    def _restart(self, rows: Tensor) -> None:
        initial = self.model.initial_state(self.batch_size)
        self.state = self.state.reset(on_device(rows, self.device), initial)
        self._open(rows)

    def _next(self, tokens: Tensor) -> Tensor:
        furthest, length = int(self.position.max()), self.model.config.context_length
        if furthest == length:
            ended = self.position == length
            self._close(ended, tokens)
            self._open(ended)
            furthest = int(self.position.max())
        positions = TOKENS_PER_STEP * on_device(self.position, self.device)[:, None] + self.offsets
        slots = self.start + positions
        used = self.start + TOKENS_PER_STEP * (furthest + 1)
        allowed = self._past(positions, used) & self.key_valid[:, None, :used]
        hidden, inputs = self._forward(tokens, self.row, slots, positions, allowed, last=1)
        self._keep(inputs, self.row, slots)
        self.position += 1
        return hidden[:, -1]

    def _past(self, positions: Tensor, used: int) -> Tensor:
        """Which of the first `used` slots do not come after `positions` `(b, n)`.

        All of memory is among them: what stands outside time comes after nothing.
        """
        return self.key_position[:, None, :used] <= positions[:, :, None]

    def _close(self, ended: Tensor, tokens: Tensor) -> None:
        """End a segment: take in its last action token, write memory, advance the state."""
        rows = self._index(ended)
        count, state = rows.shape[0], self.state.rows(rows)
        x = tokens[rows, :1]
        if state.tokens is not None:
            x = torch.cat((x, self.model.addressed(state.tokens)), dim=1)
        positions = torch.arange(self.steps - 1, self.steps + self.memory, device=self.device)
        positions = positions.expand(count, -1)
        slots = self.start + positions
        allowed = self._past(positions, self.write.stop) & self.key_valid[rows][:, None]
        # Write tokens look at each other, not at the cache; the last action sees none of them.
        allowed[:, :1, self.write] = False
        allowed[:, 1:, self.cached] = False
        last = max(1, self.memory)
        hidden, inputs = self._forward(x, rows, slots, positions, allowed, last)
        self._keep([layer[:, :1] for layer in inputs], rows, slots[:, :1])
        mask = self.key_valid.new_ones(count, self.model.config.context_length)
        inputs = [] if self.inputs is None else [layer[rows, 1:] for layer in self.inputs]
        state = self.model.advance(state, hidden, inputs, mask)
        self.state = self.state.put(rows, state)

    def _open(self, begun: Tensor) -> None:
        """Start a segment: forget the old one's tokens, take in the cache and the read tokens."""
        rows = self._index(begun)
        state, count = self.state.rows(rows), rows.shape[0]
        self.position[begun] = 0
        if state.cache is not None and state.cached is not None:
            newest_first = torch.arange(self.cache, 0, -1, device=self.device)
            self.key_valid[rows, self.cached] = newest_first <= state.cached[:, None]
            for index, block in enumerate(self.layers):
                cache = block.attention_norm(state.cache[:, index])
                keys, values = block.attention.project_cache(cache)
                self.remembered[index, 0, rows, :, self.cached] = keys
                self.remembered[index, 1, rows, :, self.cached] = values
        if state.tokens is not None:
            tokens = self.model.addressed(state.tokens)
            slots = torch.arange(self.read.start, self.read.stop, device=self.device)
            slots = slots.expand(count, -1)
            allowed = self.key_valid.new_zeros(count, self.memory, self.read.stop)
            allowed[:] = True
            self._forward(tokens, rows, slots, torch.zeros_like(slots), allowed, last=1)

    def _index(self, chosen: Tensor) -> Tensor:
        """The numbers of the rows `(B,)` bool on the CPU that are True, on the device."""
        return on_device(chosen.nonzero()[:, 0], self.device)

    def _keep(self, inputs: list[Tensor], rows: Tensor, slots: Tensor) -> None:
        """Remember what entered each layer: the cache of the next segments is made of it."""
        if self.inputs is None:
            return
        for buffer, layer in zip(self.inputs, inputs, strict=True):
            buffer[rows[:, None], slots - self.bin] = layer
