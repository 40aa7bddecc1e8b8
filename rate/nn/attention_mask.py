"""Attention masks of a segment: which queries attend to which keys.

An attention mask is a bool tensor, True where a query attends to a key, as in PyTorch's
`scaled_dot_product_attention`. A padding mask `(B, K)` tells which steps are real.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class QueryRange:
    """Queries at equal distances from each other.

    Attributes:
        start: Position of the first on the time axis of the segment.
        stride: Distance from one to the next.
        count: Number of queries.
    """

    start: int
    stride: int
    count: int

    @property
    def end(self) -> int:
        """Position that one more query would have."""
        return self.start + self.stride * self.count


@dataclass(frozen=True)
class SegmentMask:
    """The attention mask of a segment, with the geometry that it was built from.

    Queries are ordered `[steps | write | read]`, keys `[cache | steps | write | read]`. Only
    step and write tokens have a position on the time axis; the write tokens follow the last step.

    Attributes:
        cache: Number of cached keys.
        steps: Number of step tokens.
        write: Number of write tokens; 0 where the segment does not write.
        read: Number of read tokens.
        mask: `(B, 1, queries, keys)` bool, True where a query attends to a key.
    """

    cache: int
    steps: int
    write: int
    read: int
    mask: Tensor

    def without_oldest(self, count: int) -> SegmentMask:
        """The mask without the `count` oldest cached keys."""
        return replace(self, cache=self.cache - count, mask=self.mask[..., count:])

    def select_queries(self, x: Tensor, steps: slice | None) -> Tensor:
        """Selects the queries among tokens `(..., steps + write + read, n)`.

        Args:
            x: All tokens.
            steps: The step tokens that are queries; the write tokens are then queries as well, and
                the read tokens are not. None selects every token.
        """
        if steps is None:
            return x
        placed = x[..., : self.steps + self.write, :]
        return torch.cat(
            (placed[..., : self.steps, :][..., steps, :], placed[..., self.steps :, :]), dim=-2
        )

    def query_ranges(self, steps: slice | None) -> tuple[QueryRange, ...]:
        """Positions of the selected queries that are on the time axis."""
        if steps is None:
            return (QueryRange(0, 1, self.steps + self.write),)
        at = range(self.steps)[steps]
        return QueryRange(at.start, at.step, len(at)), QueryRange(self.steps, 1, self.write)

    @cached_property
    def bias(self) -> Tensor:
        """The additive mask `(1, B, queries, keys)`, keys in the order of `RelativeAttention`."""
        bias = masked_bias(torch.zeros(()), self.mask)
        return bias.roll(self.read, dims=-1).transpose(0, 1)


def masked_bias(bias: Tensor, mask: Tensor) -> Tensor:
    """Additive mask: `bias` where `mask`, else a number that softmax turns into a weight of 0.

    It is finite, so that a row without any key (padding) has no NaN in it.
    """
    return bias.masked_fill(~mask, torch.finfo(bias.dtype).min / 2)


def geometry_mask(
    cache: int,
    steps: int,
    memory: int,
    per_step: int,
    window: int | None,
    device: torch.device,
    read: int | None = None,
) -> Tensor:
    """The part of a segment's attention mask that is the same in all rows: `(queries, keys)` bool.

    It is causal over the step tokens; it has no padding.

    Args:
        cache: Cached tokens.
        steps: Step tokens.
        memory: Write tokens.
        per_step: Step tokens of a step.
        window: Steps of a sliding window, or None where there is none.
        device: Where the mask lives.
        read: Read tokens; None is as many as write tokens.
    """
    # A tensor that is traced is none to keep.
    make = _make_mask if torch.compiler.is_compiling() else _cached_mask
    return make(cache, steps, memory, per_step, window, device, read)


def _make_mask(
    cache: int,
    steps: int,
    memory: int,
    per_step: int,
    window: int | None,
    device: torch.device,
    read: int | None,
) -> Tensor:
    queries = steps + memory + (memory if read is None else read)
    mask = torch.zeros(queries, cache + queries, dtype=torch.bool)
    write, read = cache + steps, cache + steps + memory  # where these keys begin
    causal = torch.ones(steps, steps, dtype=torch.bool).tril()
    if window is not None:
        step = torch.arange(steps) // per_step
        causal &= step[:, None] - step < window
    # Step tokens attend to the cache, to earlier step tokens and to the read tokens,
    mask[:steps, :cache] = True
    mask[:steps, cache:write] = causal
    mask[:steps, read:] = True
    # write tokens to all but the cache, read tokens to each other.
    mask[steps : steps + memory, cache:] = True
    mask[steps + memory :, read:] = True
    return mask.to(device)


_cached_mask = lru_cache(maxsize=64)(_make_mask)
