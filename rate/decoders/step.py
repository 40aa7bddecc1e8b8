"""A step of acting as a function of tensors alone, for exported graphs.

A decoder keeps buffers, and reads positions on the host to do no needless work. A graph cannot:
here what is carried from step to step is a `State`, and where a segment ends is a masked select.
Each row may be at another step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rate.state import State

if TYPE_CHECKING:
    from rate.backbones.base import Backbone


@dataclass(frozen=True)
class OpenSegment(State):
    """What is carried from step to step within a segment, or a sliding window.

    Attributes:
        tokens: `(B, K, n, d)` the tokens of its steps; later places hold anything finite.
        before: The backbone's state before it.
    """

    tokens: Tensor
    before: State


def empty_segment(backbone: Backbone[Any], batch_size: int) -> OpenSegment:
    """Returns the open segment before the first step of an episode."""
    config, weight = backbone.config, next(backbone.parameters())
    shape = (batch_size, config.context_length, backbone.tokens.count, config.d_model)
    return OpenSegment(weight.new_zeros(shape), backbone.initial_state(batch_size))


def step_in_segment(
    backbone: Backbone[Any], tokens: Tensor, timesteps: Tensor, state: OpenSegment
) -> tuple[Tensor, OpenSegment]:
    """Appends a step to the open segment and runs the backbone over it.

    In every step the backbone runs twice, if it carries a state: over the segment that has ended in
    some rows, and over the open one.

    Args:
        backbone: In evaluation mode.
        tokens: `(B, n, d)` of `Tokenizer.step`.
        timesteps: `(B,)` int64, the step within its episode.
        state: The state before the step.

    Returns:
        Features `(B, d)`, and the state after the step.
    """
    length, late = backbone.config.context_length, backbone.tokens.late
    segment, before = state.tokens, state.before
    place = torch.arange(length, device=tokens.device)
    known = torch.cat((tokens[:, late:], torch.zeros_like(tokens[:, :late])), dim=1)  # (B, n, d)
    if backbone.config.carries_state:
        position = timesteps % length
        last = place == ((timesteps + length - 1) % length)[:, None]  # (B, K)
        segment = _with_late(segment, last, tokens[:, :late])
        ended = ((timesteps > 0) & (position == 0))[:, None].expand(-1, length)
        _, before = backbone(*backbone.padded(segment, ended), before)  # the others keep theirs
    else:
        position = timesteps.clamp(max=length - 1)
        last = place == (timesteps.clamp(max=length) - 1)[:, None]
        segment = _with_late(segment, last, tokens[:, :late])
        full = (timesteps >= length)[:, None, None, None]
        segment = torch.where(full, segment.roll(-1, dims=1), segment)
    here = place == position[:, None]
    segment = torch.where(here[:, :, None, None], known[:, None], segment)
    real = place <= position[:, None]
    features, _ = backbone(*backbone.padded(segment, real), before)  # (B, K, d)
    at = position[:, None, None].expand(-1, 1, features.shape[-1])
    return features.gather(1, at)[:, 0], OpenSegment(segment, before)


def _with_late(segment: Tensor, chosen: Tensor, late: Tensor) -> Tensor:
    """The tokens `(B, K, n, d)` with the late tokens `(B, l, d)` of the chosen steps `(B, K)`."""
    seen = segment.shape[2] - late.shape[1]
    completed = torch.where(chosen[:, :, None, None], late[:, None], segment[:, :, seen:])
    return torch.cat((segment[:, :, :seen], completed), dim=2)
