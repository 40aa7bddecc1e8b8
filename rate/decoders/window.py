"""Decoding of models that look back over a sliding window."""

from __future__ import annotations

import torch
from torch import Tensor

from rate.batch import on_device
from rate.decoders.base import Decoder
from rate.embeddings import ACTION, OBSERVATION, RETURN, TOKENS_PER_STEP
from rate.model import SequenceModel


class WindowDecoder(Decoder):
    """Decodes a model that looks back over a sliding window of K steps.

    Behind the bin the slots are a ring of K + 1 steps: the token of time i stands in its place i
    modulo 3 (K + 1).
    """

    def __init__(self, model: SequenceModel, batch_size: int, *, exact: bool) -> None:
        config = model.config
        self.window, self.exact = config.context_length, exact
        self.ring = TOKENS_PER_STEP * (self.window + 1)
        super().__init__(model, batch_size, 1 + self.ring, self.ring)
        self.bin = 0
        slots = (batch_size, 1 + self.ring)
        self.key_position = torch.zeros(slots, dtype=torch.int64, device=self.device)
        self.key_valid = torch.zeros_like(self.key_position, dtype=torch.bool)
        self.time = torch.zeros(batch_size, dtype=torch.int64)  # on the host; in the episode
        shape = (batch_size, self.window, TOKENS_PER_STEP, config.d_model)
        self.tokens = self.remembered.new_zeros(shape) if exact else None

    def _restart(self, rows: Tensor) -> None:
        self.time[rows] = 0
        self.key_valid &= on_device(~rows, self.device)[:, None]

    def _next(self, tokens: Tensor) -> Tensor:
        if self.tokens is not None:
            self.tokens = self.tokens.roll(-1, dims=1)
            self.tokens[:, -2:-1, ACTION] = tokens[:, :1]
            self.tokens[:, -1, RETURN], self.tokens[:, -1, OBSERVATION] = tokens[:, 1], tokens[:, 2]
        hidden = self._step(tokens)
        self.time += 1
        if self.tokens is not None and bool((self.time > self.window).any()):
            oldest = torch.arange(self.window, 0, -1, device=self.device)
            state = self.model.initial_state(self.batch_size)
            mask = oldest <= on_device(self.time, self.device)[:, None]
            hidden = self.model.segment(self.tokens, mask, state)[0][:, -1]
        return hidden

    def _step(self, tokens: Tensor) -> Tensor:
        positions = TOKENS_PER_STEP * on_device(self.time, self.device)[:, None] + self.offsets
        slots = torch.where(positions < 0, self.bin, 1 + positions % self.ring)
        at = (self.row[:, None], slots)
        self.key_position[at], self.key_valid[at] = positions, True
        self.key_valid[:, self.bin] = False
        used = 1 + min(self.ring, TOKENS_PER_STEP * (int(self.time.max()) + 1))
        key_position = self.key_position[:, :used]
        step, key_step = positions // TOKENS_PER_STEP, key_position // TOKENS_PER_STEP
        in_window = step[:, :, None] - key_step[:, None] < self.window
        past = key_position[:, None] <= positions[:, :, None]
        allowed = past & in_window & self.key_valid[:, None, :used]
        return self._forward(tokens, self.row, slots, positions, allowed, last=1)[0][:, -1]
