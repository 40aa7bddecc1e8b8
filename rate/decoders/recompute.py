"""Decoding by a forward pass over the open segment at every step; works for every backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rate.batch import on_device

if TYPE_CHECKING:
    from rate.backbones.base import Backbone


class RecomputeDecoder:
    """Buffers the tokens of the open segment and runs the backbone over them at every step.

    For a backbone that carries no state, the buffer holds the last K steps.

    Args:
        backbone: In evaluation mode.
        batch_size: Rows.
    """

    def __init__(self, backbone: Backbone[Any], batch_size: int) -> None:
        config, weight = backbone.config, next(backbone.parameters())
        self.backbone, self.length, self.device = backbone, config.context_length, weight.device
        shape = (batch_size, self.length, backbone.tokens.count, config.d_model)
        self.tokens = weight.new_zeros(shape)
        self.state = backbone.initial_state(batch_size)
        self.position = torch.zeros(batch_size, dtype=torch.int64)  # on the host; in the segment
        self.row = torch.arange(batch_size, device=self.device)

    def reset(self, rows: Tensor, state: Any = None) -> None:
        """See `Decoder`."""
        first = self.backbone.initial_state(len(self.position)) if state is None else state
        self.state = self.state.where(on_device(rows, self.device), first)
        self.position[rows] = 0

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        self.put(tokens)
        return self.compute()

    def put(self, tokens: Tensor) -> None:
        """Appends the tokens `(B, n, d)` of one more step, without a forward pass."""
        late, seen = self.backbone.tokens.late, self.backbone.tokens.read + 1
        # The late tokens complete the previous step; where there is none, they are overwritten.
        before = on_device(self.position, self.device).sub(1).clamp(min=0)
        self.tokens[self.row, before, seen:] = tokens[:, :late]
        if bool((full := self.position == self.length).any()):
            self._make_room(full)
        position = on_device(self.position, self.device)
        self.tokens[self.row, position, :seen] = tokens[:, late:]
        self.tokens[self.row, position, seen:] = 0.0
        self.position += 1

    def compute(self) -> Tensor:
        """Features `(B, d)` of the last step."""
        steps = int(self.position.max())
        position = on_device(self.position, self.device)
        mask = torch.arange(steps, device=self.device) < position[:, None]  # (B, steps)
        features, _ = self._forward(self.tokens[:, :steps], mask)
        return features[self.row, position - 1]

    def _make_room(self, full: Tensor) -> None:
        """Ends the segments of the rows `(B,)` that are full; a window drops its oldest step."""
        rows = on_device(full, self.device)
        if self.backbone.config.carries_state:
            mask = rows[:, None].expand(-1, self.length)  # the others keep their state
            self.state = self._forward(self.tokens, mask)[1]
            self.position[full] = 0
        else:
            shifted = self.tokens.roll(-1, dims=1)
            self.tokens = torch.where(rows[:, None, None, None], shifted, self.tokens)
            self.position[full] -= 1

    def _forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        features, state = self.backbone(*self.backbone.padded(tokens, mask), self.state)
        return features, state
