"""Decoding of transformers that look back over a sliding window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rate.batch import on_device
from rate.decoders.recompute import RecomputeDecoder
from rate.decoders.transformer import TransformerDecoder

if TYPE_CHECKING:
    from rate.backbones.window_transformer import WindowTransformer


class WindowDecoder(TransformerDecoder):
    """Decodes a transformer that looks back over a sliding window of K steps.

    Behind the bin the slots are a ring of K + 1 steps: the token of time i stands in its place i
    modulo n (K + 1).

    Args:
        backbone: In evaluation mode.
        batch_size: Rows.
        exact: Compute the window again at every step past the K-th.
    """

    def __init__(self, backbone: WindowTransformer, batch_size: int, *, exact: bool) -> None:
        config = backbone.config
        self.window, self.count = config.context_length, backbone.tokens.count
        self.ring = self.count * (self.window + 1)
        super().__init__(backbone, batch_size, 1 + self.ring, self.ring)
        self.bin = 0
        slots = (batch_size, 1 + self.ring)
        self.key_position = torch.zeros(slots, dtype=torch.int64, device=self.device)
        self.key_valid = torch.zeros_like(self.key_position, dtype=torch.bool)
        self.time = torch.zeros(batch_size, dtype=torch.int64)  # on the host; in the episode
        self.again = RecomputeDecoder(backbone, batch_size) if exact else None

    def reset(self, rows: Tensor) -> None:
        """See `Decoder`."""
        self.time[rows] = 0
        self.key_valid &= on_device(~rows, self.device)[:, None]
        if self.again is not None:
            self.again.reset(rows)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        past = self.again is not None and bool((self.time >= self.window).any())
        if self.again is not None:
            self.again.put(tokens)
        # Rows within their first K steps still need their keys.
        hidden = self._step(tokens)
        self.time += 1
        return self.again.compute() if past and self.again is not None else hidden

    def _step(self, tokens: Tensor) -> Tensor:
        positions = self.count * on_device(self.time, self.device)[:, None] + self.offsets
        slots = torch.where(positions < 0, self.bin, 1 + positions % self.ring)
        at = (self.row[:, None], slots)
        self.key_position[at], self.key_valid[at] = positions, True
        self.key_valid[:, self.bin] = False
        used = 1 + min(self.ring, self.count * (int(self.time.max()) + 1))
        key_position = self.key_position[:, :used]
        step, key_step = positions // self.count, key_position // self.count
        in_window = step[:, :, None] - key_step[:, None] < self.window
        past = key_position[:, None] <= positions[:, :, None]
        allowed = past & in_window & self.key_valid[:, None, :used]
        return self._forward(tokens, self.row, slots, positions, allowed, last=1)[0][:, -1]
