"""The state of any backbone as numbers: its parts, its rows, and disturbances of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rate.backbones.segment_transformer import SegmentState
from rate.backbones.step_recurrent import StepState
from rate.batch import Batch
from rate.model import SequenceModel
from rate.state import State

Disturb = Callable[[int, State], State]


def memory_parts(state: State) -> dict[str, Tensor]:
    """Returns what a state remembers: its tensors `(B, ...)` of real numbers, by name.

    Entries of a cache that are not filled are 0. The last action of a recurrent state (`late`) is
    no memory.
    """
    parts = {name: part for name, part in state.tensors().items() if part.is_floating_point()}
    if isinstance(state, StepState):
        del parts["late"]
    if isinstance(state, SegmentState) and state.cache is not None and state.cached is not None:
        size = state.cache.shape[2]
        is_filled = torch.arange(size, 0, -1, device=state.cached.device) <= state.cached[:, None]
        parts["cache"] = state.cache * is_filled[:, None, :, None]
    return parts


def written_memory(state: State) -> Tensor | None:
    """Returns what the segments of a transformer write, or None if it is another state.

    These are the memory tokens `(B, m, d)`, or the associative memory of all layers `(B, L, d, f)`
    where there is one: memory tokens then stay as they are.
    """
    if not isinstance(state, SegmentState):
        return None
    return state.memory if state.association is None else state.association[0]


def memory_rows(state: State) -> Tensor | None:
    """Returns the memory as rows `(B, m, w)`; None if there is none.

    These are what a transformer writes (its cache is left out), and all parts of any other state,
    with zeros at the ends of rows where another part is wider.
    """
    if isinstance(state, SegmentState):
        written = written_memory(state)
        return written if written is None or written.ndim == 3 else written.flatten(1, -2)
    named = memory_parts(state)
    if not named:
        return None
    parts = [p.flatten(1, -2) if p.ndim > 2 else p[:, None] for p in named.values()]
    width = max(part.shape[-1] for part in parts)
    padded = [F.pad(part, (0, width - part.shape[-1])) for part in parts]
    return torch.cat(padded, dim=1)


def disturbed(state: State, strength: float, generator: torch.Generator) -> State:
    """Returns a state with Gaussian noise of a standard deviation on what it remembers.

    In a transformer with memory tokens, on what segments write alone; see `written_memory`.
    """

    def noisy(part: Tensor) -> Tensor:
        if not part.is_floating_point():
            return part
        return part + strength * torch.randn(part.shape, generator=generator).to(part)

    if isinstance(state, SegmentState) and state.association is not None:
        matrix, normaliser = state.association
        return replace(state, association=(noisy(matrix), normaliser))
    if isinstance(state, SegmentState) and state.memory is not None:
        return replace(state, memory=noisy(state.memory))
    if isinstance(state, StepState):
        return replace(state._map(noisy), late=state.late)
    return state._map(noisy)


def follow(
    model: SequenceModel, batch: Batch, disturb: Disturb = lambda number, state: state
) -> Iterator[tuple[State, Tensor]]:
    """Yields the state after each segment, and the features `(B, K, d)` of its steps.

    Of a model with a sliding window, the features of the last step are those of acting: its window
    is the segment.

    Args:
        model: In evaluation mode.
        batch: Episodes from their start.
        disturb: Given the number of a segment and the state before it, returns the state it starts
            from.
    """
    state, length = model.initial_state(batch.batch_size), model.config.context_length
    for number, start in enumerate(range(0, batch.num_steps, length)):
        features, state = model.features(batch.steps(start, start + length), disturb(number, state))
        yield state, features
