"""Where the tokens of a segment stand: who may look at whom, and from how far."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """Queries at equal distances from each other.

    Attributes:
        start: Where the first stands on the time axis of a segment.
        stride: From one to the next.
        count: How many they are.
    """

    start: int
    stride: int
    count: int

    @property
    def end(self) -> int:
        """Where another one would stand."""
        return self.start + self.stride * self.count


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a segment stand, for the attention of a whole segment.

    Queries are ordered `[steps | write | read]`, keys `[cache | steps | write | read]`. Only
    step and write tokens have a place on the time axis; the write tokens follow the last step.

    Attributes:
        cache: Number of cached keys.
        steps: Number of step tokens.
        write: Number of write tokens; 0 where the segment does not write.
        read: Number of read tokens.
        allowed: `(B, 1, queries, keys)` bool, True where a query may look at a key.
    """

    cache: int
    steps: int
    write: int
    read: int
    allowed: Tensor

    def queries(self, x: Tensor, steps: slice | None) -> Tensor:
        """Of tokens `(..., steps + write + read, n)` those that attend.

        Args:
            x: All tokens.
            steps: The step tokens that do, and then of the others the write tokens alone; None is
                every token.
        """
        if steps is None:
            return x
        placed = x[..., : self.steps + self.write, :]
        return torch.cat(
            (placed[..., : self.steps, :][..., steps, :], placed[..., self.steps :, :]), dim=-2
        )

    def runs(self, steps: slice | None) -> tuple[Run, ...]:
        """Where those of `queries` stand that have a place on the time axis."""
        if steps is None:
            return (Run(0, 1, self.steps + self.write),)
        at = range(self.steps)[steps]
        return Run(at.start, at.step, len(at)), Run(self.steps, 1, self.write)

    @cached_property
    def bias(self) -> Tensor:
        """The mask as `RelativeAttention` adds it to the scores of every layer."""
        bias = masked_bias(torch.zeros(()), self.allowed)
        return bias.roll(self.read, dims=-1).transpose(0, 1)


def relative_shift(scores: Tensor, stride: int = 1) -> Tensor:
    """Turn scores by distance into scores by key (Dai et al. 2019, appendix B), without a copy.

    Args:
        scores: `(B, H, Q, D + 1)`, contiguous; column t belongs to the distance D - t.
        stride: Of the queries. Each sees the keys `stride` nearer than the one before did.

    Returns:
        `(B, H, Q, D + 1 - stride)`, a view. Row i, column j belongs to the distance
        D - stride (Q - i) - j; entries of negative distance are undefined.
    """
    queries, columns = scores.shape[-2:]
    width = columns - stride
    flat = scores.flatten(-2)[..., queries * stride :]
    return flat[..., : queries * width].view(*scores.shape[:-1], width)


def masked_bias(bias: Tensor, allowed: Tensor) -> Tensor:
    """`bias` where `allowed`, else a number so low that softmax gives it exactly no weight.

    It is finite, so that a row with nothing to look at (padding) has no NaN in it.
    """
    return bias.masked_fill(~allowed, torch.finfo(bias.dtype).min / 2)


@lru_cache(maxsize=64)
def visibility(
    cache: int, steps: int, memory: int, per_step: int, window: int | None, device: torch.device
) -> Tensor:
    """The part of a segment's attention mask that no batch changes: `(queries, keys)` bool.

    Args:
        cache: Cached tokens.
        steps: Step tokens.
        memory: Memory tokens, as many to write as to read.
        per_step: Step tokens of a step.
        window: Steps of a sliding window, or None where there is none.
        device: Where the mask lives.
    """
    allowed = torch.zeros(steps + 2 * memory, cache + steps + 2 * memory, dtype=torch.bool)
    write, read = cache + steps, cache + steps + memory
    allowed[:steps, :cache] = True
    causal = torch.ones(steps, steps, dtype=torch.bool).tril()
    if window is not None:
        step = torch.arange(steps) // per_step
        causal &= step[:, None] - step < window
    allowed[:steps, cache:write] = causal
    allowed[:steps, read:] = True
    allowed[steps : steps + memory, cache:] = True
    allowed[steps + memory :, read:] = True
    return allowed.to(device)
