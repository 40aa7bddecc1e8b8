"""What the layers of a transformer do: attention to steps and memory, gates, spans, depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.model import SequenceModel
from rate.nn.attention import Attention
from rate.nn.attention_mask import SegmentMask
from rate.nn.blocks import Residual


@dataclass(frozen=True)
class Inside:
    """What the layers did in the last steps of episodes, means over episodes.

    Attributes:
        attention: `(S, S)`, of the attention at each step's prediction the share that past steps
            get, a mean over heads and layers. Rows do not sum to 1 where memory tokens, persistent
            vectors or earlier steps get some.
        memory: `(S,)`, the share that memory tokens get.
        openness: `(R,)`, the change of the stream by each sub-layer, relative to the stream, in the
            order of the layers: how open the gate of a residual connection is.
        spans: `(L, H)` learned spans in tokens, or None.
        depth: `(S,)` layers that the tokens of a step take, and their remainder, or None.
        first: The first of the S steps.
    """

    attention: Tensor
    memory: Tensor
    openness: Tensor
    spans: Tensor | None
    depth: Tensor | None
    first: int


@torch.no_grad()
def look_inside(model: SequenceModel, batch: Batch, most_steps: int = 120) -> Inside | None:
    """Returns what the layers do in the last segments of episodes.

    Args:
        model: In evaluation mode.
        batch: `(B, T)` episodes from their start, none shorter than the others.
        most_steps: About the most steps to show.

    Returns:
        None of a model without our multi-head attention over steps.
    """
    modules = [module for module in model.modules() if isinstance(module, Attention)]
    if not modules:
        return None
    length, steps, state = model.config.context_length, batch.num_steps, None
    first = max(0, steps - max(most_steps, length)) // length * length
    size = length if model.config.carries_state else steps - first
    if first and model.config.carries_state:
        state = model.features(batch.steps(0, first))[1]
    record = _Record(model, steps - first)
    depth: list[Tensor] = []
    for start in range(first, steps, size):
        part = batch.steps(start, min(start + size, steps))
        with _hooked(model, partial(record.attended, start - first, part.num_steps), record):
            _, state, losses = model.features_and_losses(part, state)
        weight = getattr(model.config, "ponder_weight", 0.0)
        if "ponder" in losses and weight:
            depth.append(losses["ponder"].mean(0) / weight)
    if not record.calls.any():  # the public architecture computes its own attention
        return None
    spans = [each.span.share * each.span.longest for each in modules if each.span is not None]
    changes = [torch.stack(sizes).mean() for sizes in record.changes.values()]
    return Inside(
        record.attention / record.calls[:, None],
        record.memory / record.calls,
        torch.stack(changes) if changes else torch.zeros(0),
        torch.stack(spans) if spans else None,
        torch.cat(depth) if depth else None,
        first,
    )


class _Record:
    """Adds up what hooks see of S steps.

    Args:
        model: The model.
        steps: S.
    """

    def __init__(self, model: SequenceModel, steps: int) -> None:
        self.backbone, self.length = model.backbone, model.config.context_length
        self.attention, self.memory = torch.zeros(steps, steps), torch.zeros(steps)
        self.calls = torch.zeros(steps)  # layers, as many as a tied layer is called
        self.changes: dict[nn.Module, list[Tensor]] = {}

    def attended(
        self, start: int, steps: int, module: Attention, given: tuple[Any, ...], _: Tensor
    ) -> None:
        """Adds the attention in a segment: `steps` real steps, the first is `start` of the S."""
        x, cache, mask, chosen = (*given, None)[:4]
        shares = attention_weights(module, x, cache, mask, chosen).mean((0, 1)).float()
        per_step = mask.steps // (self.length if self.backbone.whole_segments else steps)
        if chosen is None:  # all tokens are queries
            tokens = self.backbone.tokens
            read = tokens.read if per_step == tokens.count else 0  # else its steps are one token
            shares = shares[read : mask.steps : per_step]
        shares = shares[:steps]  # (steps, keys)
        token = torch.arange(-mask.cache, mask.steps)
        step = start + token.div(per_step, rounding_mode="floor")
        shown = (step >= 0) & (step < start + steps)
        rows = slice(start, start + steps)
        self.calls[rows] += 1
        self.attention[rows].index_add_(1, step[shown], shares[:, : len(token)][:, shown])
        self.memory[rows] += shares[:, mask.cache + mask.steps + mask.write :].sum(1)

    def changed(self, module: nn.Module, given: tuple[Tensor, Tensor], out: Tensor) -> None:
        """Takes the change of the stream by a residual connection."""
        change = (out - given[0]).norm(dim=-1) / given[0].norm(dim=-1).clamp(min=1e-6)
        self.changes.setdefault(module, []).append(change.mean())


@contextmanager
def _hooked(model: SequenceModel, attended: Callable[..., None], record: _Record) -> Iterator[None]:
    """Shows what attentions and residual connections compute to hooks."""
    hooks = {Attention: attended, Residual: record.changed}
    handles = [
        module.register_forward_hook(hook)
        for module in model.modules()
        for kind, hook in hooks.items()
        if isinstance(module, kind)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_weights(
    attention: Attention,
    x: Tensor,
    cache: Tensor | None,
    segment_mask: SegmentMask,
    steps: slice | None = None,
) -> Tensor:
    """Returns the attention weights `(B, H, Q, keys)` of what `Attention.forward` takes.

    Persistent vectors are left out; they have what is missing to a sum of 1.
    """
    queries, keys, _, biases = attention.inputs(x, cache, segment_mask, steps)
    if attention.relative:
        queries = queries + attention.content_bias
    scores = queries @ keys.mT / math.sqrt(attention.d_head) + sum(biases)
    if attention.persistent:
        learned = queries @ attention.persistent_keys.mT / math.sqrt(attention.d_head)
        scores = torch.cat((learned, scores), dim=-1)
    return scores.softmax(-1)[..., attention.persistent :]
