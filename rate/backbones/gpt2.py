"""GPT-2 of Memory-RL (Ni et al. 2023, arXiv 2307.03864): a transformer with one token a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rate.backbones.base import Backbone, Losses, RunSegment
from rate.backbones.window_settings import GPT2Config
from rate.backbones.window_transformer import NoState, WindowTransformer
from rate.decoders.window import JoinedWindowDecoder
from rate.tokenizers import StepTokens


class GPT2(Backbone[NoState]):
    """A transformer with a sliding window of K steps, or of a whole episode, and one token a step.

        x_t = W [ReLU(a_{t-1}), ReLU(R_t), ReLU(o_t)]

    Memory-RL concatenates the parts, of widths of their own, and has the last reward for R_t (by
    default neither). The first step of a window has no last action: a zero. A sequence is a third
    as long as that of a Decision Transformer.

    Attributes:
        transformer: A `WindowTransformer` of one token a step.
    """

    Config = GPT2Config
    config: GPT2Config

    def __init__(self, config: GPT2Config, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        self.input = nn.Linear(tokens.count * config.d_model, config.d_model)
        self.transformer = WindowTransformer(config, StepTokens(count=1, read=0))

    def initial_state(self, batch_size: int) -> NoState:
        """The empty state."""
        return NoState()

    def join(self, late: Tensor, known: Tensor) -> Tensor:
        """The tokens x `(..., 1, d)` of steps.

        Args:
            late: `(..., l, d)`, tokens of the steps before that were known after them.
            known: `(..., n - l, d)`, tokens of the steps that are known before their actions.
        """
        parts = torch.cat((late, known), dim=-2).relu()
        x: Tensor = self.input(parts.flatten(-2))
        return x[..., None, :]

    def forward(self, tokens: Tensor, mask: Tensor, state: NoState) -> tuple[Tensor, NoState]:
        """See `Backbone`."""
        features, state, _ = self.forward_with_losses(tokens, mask, state)
        return features, state

    def forward_with_losses(
        self, tokens: Tensor, mask: Tensor, state: NoState
    ) -> tuple[Tensor, NoState, Losses]:
        """See `Backbone`. Losses: those of `Transformer`."""
        return self.transformer.forward_with_losses(self._joined(tokens), mask, state)

    def _joined(self, tokens: Tensor) -> Tensor:
        """The tokens `(B, K, 1, d)` of steps `(B, K, n, d)`."""
        seen = self.tokens.read + 1
        late = tokens[:, :, seen:]  # (B, K, l, d)
        late = torch.cat((torch.zeros_like(late[:, :1]), late[:, :-1]), dim=1)
        return self.join(late, tokens[:, :, :seen])

    def compiled(self, backend: str | Callable[..., Any]) -> RunSegment[NoState]:
        """See `Backbone`."""
        run = self.transformer.compiled(backend)
        return lambda tokens, mask, state: run(self._joined(tokens), mask, state)

    def after_step(self) -> None:
        """See `Backbone`."""
        self.transformer.after_step()

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> JoinedWindowDecoder:
        """A decoder with a KV cache; see `WindowTransformer.make_decoder`."""
        return JoinedWindowDecoder(self, batch_size, exact=exact)
