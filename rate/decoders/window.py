"""Decoding of transformers with a sliding window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rate.batch import on_device
from rate.decoders.recompute import RecomputeDecoder
from rate.decoders.transformer import TransformerDecoder

if TYPE_CHECKING:
    from rate.backbones.gpt2 import GPT2
    from rate.backbones.window_transformer import WindowTransformer


class WindowDecoder(TransformerDecoder):
    """Decodes a transformer with a sliding window of K steps.

    Slots: `[scratch | ring buffer of K + 1 steps]`. The token at position i is in slot i modulo
    n (K + 1) of the ring buffer.

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
        self.scratch = 0
        slots = (batch_size, 1 + self.ring)
        self.key_position = torch.zeros(slots, dtype=torch.int64, device=self.device)
        self.key_valid = torch.zeros_like(self.key_position, dtype=torch.bool)
        self.time = torch.zeros(batch_size, dtype=torch.int64)  # on the host; in the episode
        self.recompute = RecomputeDecoder(backbone, batch_size) if exact else None

    def reset(self, rows: Tensor, state: Any = None) -> None:
        """See `Decoder`."""
        self.time[rows] = 0
        self.key_valid &= on_device(~rows, self.device)[:, None]
        if self.recompute is not None:
            self.recompute.reset(rows, state)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        past = self.recompute is not None and bool((self.time >= self.window).any())
        if self.recompute is not None:
            self.recompute.put(tokens)
        # Rows within their first K steps still need their keys cached.
        hidden = self._step(tokens)
        self.time += 1
        return self.recompute.compute() if past and self.recompute is not None else hidden

    def _step(self, tokens: Tensor) -> Tensor:
        positions = self.count * on_device(self.time, self.device)[:, None] + self.offsets
        slots = torch.where(positions < 0, self.scratch, 1 + positions % self.ring)
        at = (self.row[:, None], slots)
        self.key_position[at], self.key_valid[at] = positions, True
        self.key_valid[:, self.scratch] = False
        used = 1 + min(self.ring, self.count * (int(self.time.max()) + 1))
        key_position = self.key_position[:, :used]
        step, key_step = positions // self.count, key_position // self.count
        in_window = step[:, :, None] - key_step[:, None] < self.window
        causal = key_position[:, None] <= positions[:, :, None]
        mask = causal & in_window & self.key_valid[:, None, :used]  # (B, n, used)
        return self._forward(tokens, self.row, slots, positions, mask, last=1)[0][:, -1]


class JoinedWindowDecoder(WindowDecoder):
    """Decodes a transformer whose step is one token, joined of those of the tokenizer.

    Args:
        backbone: In evaluation mode.
        batch_size: Rows.
        exact: See `WindowDecoder`. The first step of a window has no last action, so that the
            window is joined again too.
    """

    def __init__(self, backbone: GPT2, batch_size: int, *, exact: bool) -> None:
        super().__init__(backbone.transformer, batch_size, exact=False)
        self.joined = backbone
        self.recompute = RecomputeDecoder(backbone, batch_size) if exact else None

    def _step(self, tokens: Tensor) -> Tensor:
        late = self.joined.tokens.late
        begun = on_device(self.time > 0, self.device)[:, None, None]
        before = tokens[:, :late] * begun  # tokens of another episode, which are finite
        return super()._step(self.joined.join(before, tokens[:, late:]))
