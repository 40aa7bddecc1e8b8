"""Backbones that read one vector a step and carry a state from step to step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from rate.backbones.base import Backbone
from rate.backbones.cell_settings import RecurrentConfig
from rate.decoders.recurrent import RecurrentDecoder
from rate.kernels.cpu_dropout import Dropout
from rate.state import State
from rate.tokenizers import StepTokens


@dataclass(frozen=True, kw_only=True)
class StepState(State):
    """The state after a step.

    Attributes:
        late: `(B, l, d)` tokens of the last step that are known only after it (its action), zeros
            before the first.
    """

    late: Tensor


S = TypeVar("S", bound=StepState)


class StepRecurrent(Backbone[S]):
    """Reads one vector a step: (a_{t-1}, R_t, o_t), concatenated.

        x_t = ReLU(W [a_{t-1}, R_t, o_t] + b)

    A subclass computes the features of all steps from x and the state (`run`). Applied to one step
    at a time, `run` is the decoder, so that an action costs the same at every step of an episode.

    With `interleaved` settings, x is the sequence of the tokens themselves, n for every step, and
    the features of a step are those of its last token, o_t.
    """

    Config = RecurrentConfig
    config: RecurrentConfig

    def __init__(self, config: RecurrentConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        size = config.d_model
        self.input = None if config.interleaved else nn.Linear(tokens.count * size, size)
        self.dropout = Dropout(config.dropout)

    def run(self, x: Tensor, mask: Tensor, state: S) -> tuple[Tensor, S]:
        """Returns the features `(B, K, d)` of steps x `(B, K, d)`, and the state after them.

        Padding must not change the state of a row with real steps. `late` is set by the caller.
        """
        raise NotImplementedError

    def initial_late(self, batch_size: int) -> Tensor:
        """Returns the `late` tokens before the first step, zeros `(B, l, d)`."""
        weight = next(self.parameters())
        return weight.new_zeros(batch_size, self.tokens.late, self.config.d_model)

    def forward(self, tokens: Tensor, mask: Tensor, state: S) -> tuple[Tensor, S]:
        """See `Backbone`."""
        seen = self.tokens.read + 1
        late = torch.cat((state.late[:, None], tokens[:, :, seen:]), dim=1)  # (B, 1 + K, l, d)
        steps = torch.cat((late[:, :-1], tokens[:, :, :seen]), dim=2)  # (B, K, n, d)
        if self.input is None:
            tokens_mask = mask.repeat_interleave(self.tokens.count, dim=1)
            features, after = self.run(steps.flatten(1, 2), tokens_mask, state)  # (B, nK, d)
            features = features[:, self.tokens.count - 1 :: self.tokens.count]  # (B, K, d)
        else:
            x = torch.relu(self.input(steps.flatten(2)))  # (B, K, d)
            features, after = self.run(x, mask, state)
        lengths = mask.sum(1)  # (B,)
        last = lengths[:, None, None, None].expand(-1, 1, *late.shape[2:])  # (B, 1, l, d)
        after = replace(after, late=late.gather(1, last)[:, 0])
        return self.dropout(features), after.where(lengths == 0, state)

    def acting_state(self, batch_size: int) -> S:
        """See `Backbone`."""
        return self.initial_state(batch_size)

    def step(self, tokens: Tensor, timesteps: Tensor, state: S) -> tuple[Tensor, S]:
        """See `Backbone`. At timestep 0 the late tokens are those of the state."""
        late = self.tokens.late
        begun = (timesteps > 0)[:, None, None]
        state = replace(state, late=torch.where(begun, tokens[:, :late], state.late))
        # The late tokens of this step (its action) are not known yet; the next step brings them.
        tokens = torch.cat((tokens[:, late:], torch.zeros_like(tokens[:, :late])), dim=1)
        mask = torch.ones_like(timesteps, dtype=torch.bool)[:, None]
        features, state = self(tokens[:, None], mask, state)
        return features[:, 0], state

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> RecurrentDecoder[S]:
        """Returns a decoder that carries the state from step to step."""
        return RecurrentDecoder(self, batch_size)
