"""Relative attention for training on a CPU, in blocks of queries that fit its cache.

PyTorch has no fused kernel for a bias that has a gradient. Without one, every score is read and
written about ten times, and half of the scores are masked (causal). Here a block is a few queries
of a few rows of the batch, with no more keys than the attention mask allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from rate.kernels.cpu_dropout import dropout_mask, dropout_scale
from rate.nn.attention_mask import QueryRange
from rate.nn.positions import relative_shift

QUERIES = 48  # of a block; a segment of no more gains nothing here
_MULTIPLE = 16  # of sizes: matrix products are a quarter faster
_BYTES = 2**21  # of a block's scores in the cache of a core


@dataclass(frozen=True)
class Block:
    """A few queries, and the first keys of the order `[read | cache | steps | write]`.

    Attributes:
        queries: Their indices among `[steps | write | read]`.
        rows: Their rows of the output.
        keys: Number of their keys.
        reach: One more than the largest distance to a key; 0 for queries without positions.
        timed: Number of keys, after the read tokens, that are on the time axis.
    """

    queries: slice
    rows: slice
    keys: int
    reach: int
    timed: int

    @property
    def count(self) -> int:
        """Number of queries."""
        return int(self.rows.stop - self.rows.start)

    @property
    def stride(self) -> int:
        """Distance from a query to the next."""
        return int(self.queries.step or 1)


@dataclass(frozen=True)
class Plan:
    """A segment cut into blocks.

    Attributes:
        cache: Number of cached keys.
        placed: Number of step and write tokens, which are on the time axis.
        read: Number of read tokens.
        blocks: The blocks; every query is in one.
    """

    cache: int
    placed: int
    read: int
    blocks: list[Block]

    @property
    def rows(self) -> int:
        """Number of queries, which is that of output rows."""
        return int(self.blocks[-1].rows.stop)


@lru_cache(maxsize=64)
def make_plan(
    cache: int,
    steps: int,
    write: int,
    read: int,
    ranges: tuple[QueryRange, ...],
    queries: int = QUERIES,
) -> Plan:
    """Cuts a segment, with the queries of `ranges`, into blocks of at most `queries` queries."""
    placed, total = steps + write, read + cache + steps + write
    blocks: list[Block] = []
    before = 0
    for part in ranges:
        for first in range(0, part.count, queries):
            count = min(queries, part.count - first)
            piece = QueryRange(part.start + part.stride * first, part.stride, count)
            newest = piece.end - part.stride + 1
            # Write tokens attend to each other; they are in the last blocks.
            keys = total if newest > steps else _round_up(read + cache + newest, total)
            where = slice(piece.start, piece.end, part.stride)
            rows = slice(before, before + piece.count)
            timed = cache + min(newest, steps)
            blocks.append(Block(where, rows, keys, cache + piece.end, timed))
            before += piece.count
    if read and len(ranges) == 1:
        rows = slice(before, before + read)
        blocks.append(Block(slice(placed, placed + read), rows, _round_up(read, total), 0, 0))
    return Plan(cache, placed, read, blocks)


class RelativeAttention(torch.autograd.Function):
    """Attention of queries q over keys k and values v; r_t is the projection of distance t.

        S_ij = ((q_i + a) . k_j + (q_i + b) . r_{i-j}) / sqrt(d)     P = softmax(S)     O = M P v

    M is dropout's mask. With dX for the gradient of X, and D_it = dS_ij where i - j = t (the shift
    undone):

        dv = (M P)' dO         dS = M P * dO v' - P * rowsum(dO * O)     dq = d(q + a) + d(q + b)
        dk = dS' (q + a) / sqrt(d)     d(q + a) = dS k / sqrt(d)         da = sum of d(q + a)
        dr = D' (q + b) / sqrt(d)      d(q + b) = D r / sqrt(d)          db = sum of d(q + b)

    Scores are `(H, B, queries, keys)`: the queries of all rows share a table of distances.
    """

    @staticmethod
    def forward(
        ctx: Any, heads: Tensor, cached: Tensor | None, table: Tensor, a: Tensor, b: Tensor,
        bias: Tensor, plan: Plan, dropout: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """`(B, Q, H, d)` of `heads` `(B, T, 3, H, d)`: queries, keys and values side by side.

        Args:
            ctx: Stores what the gradient needs.
            heads: Tokens in the order `[steps | write | read]`.
            cached: `(B, C, 2, H, d)` keys and values of cached tokens.
            table: `(H, D, d)`, the distances D - 1 down to 0.
            a: `(H, 1, d)`.
            b: `(H, 1, d)`.
            bias: `(1, B, queries, keys)` additive attention mask; keys in the order
                `[read | cache | steps | write]`.
            plan: The blocks.
            dropout: Of the probabilities P.
        """
        out, probabilities = heads.new_empty(len(heads), plan.rows, *heads.shape[3:]), []
        scale = 1 / math.sqrt(heads.shape[-1])
        scaled_table = scale * table
        ctx.plan, ctx.parts, ctx.dropout = plan, _parts(heads, plan), dropout
        for rows in ctx.parts:
            keys, values = _keys_and_values(heads, cached, rows, plan)
            keys *= scale
            queries, mixed = _by_head(heads[rows, :, 0]), _by_head(out[rows])
            for block in plan.blocks:
                q = queries[:, :, block.queries]
                scores = _product(q + a[:, None], keys[:, : block.keys].mT)
                if block.reach:
                    near = _nearest(scaled_table, block)
                    by_distance = (q + b[:, None]).flatten(1, 2) @ near.mT
                    _timed(scores, block, plan).add_(_shifted(by_distance, block))
                scores += bias[:, rows, block.queries, : block.keys]
                p = torch.softmax(scores, -1, out=scores)
                if dropout:  # the sign is the mask, so that one array holds both P and M P
                    p = torch.where(dropout_mask(p.shape, dropout), p, -p)
                mixed[:, :, block.rows] = _product(
                    _after_dropout(p, dropout), values[:, : block.keys]
                )
                probabilities.append(p)
        ctx.save_for_backward(heads, cached, table, a, b, out, *probabilities)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments of `forward`."""
        heads, cached, table, a, b, out, *saved = ctx.saved_tensors
        plan, probabilities = ctx.plan, iter(saved)
        d_heads, d_cached = torch.empty_like(heads), None
        if plan.rows < heads.shape[1]:
            d_heads[:, :, 0] = 0  # of queries that did not attend
        if cached is not None:
            d_cached = torch.empty_like(cached)
        d_table, d_a, d_b = (torch.zeros_like(x) for x in (table, a, b))
        scale = 1 / math.sqrt(heads.shape[-1])
        scaled_table = scale * table
        for rows in ctx.parts:
            keys, values = _keys_and_values(heads, cached, rows, plan)
            keys *= scale
            d_keys, d_values = torch.zeros_like(keys), torch.zeros_like(values)
            queries, d_queries = _by_head(heads[rows, :, 0]), _by_head(d_heads[rows, :, 0])
            d_mixed = _by_head(d_out[rows])
            mean = _by_head((d_out[rows] * out[rows]).sum(-1, keepdim=True))
            for block in plan.blocks:
                at, seen, p = block.rows, slice(block.keys), next(probabilities)
                q, d_o = queries[:, :, block.queries], d_mixed[:, :, at].contiguous()
                dropped = _after_dropout(p, ctx.dropout)
                d_values[:, seen] += dropped.flatten(0, 1).mT @ d_o.flatten(0, 1)
                d_scores = _product(d_o, values[:, seen].mT)
                if ctx.dropout:
                    d_scores.mul_(dropped).sub_(p.abs().mul_(mean[:, :, at]))
                else:
                    d_scores.sub_(mean[:, :, at]).mul_(p)
                d_keys[:, seen] += d_scores.flatten(0, 1).mT @ (q + a[:, None]).flatten(0, 1)
                d_q = _product(d_scores, keys[:, seen])
                d_a += d_q.sum((1, 2))[:, None]
                if block.reach:
                    near = _nearest(scaled_table, block)
                    by_distance = near.new_zeros(len(near), d_q[0, ..., 0].numel(), near.shape[1])
                    shifted = _shifted(by_distance, block)
                    shifted.copy_(_timed(d_scores, block, plan))
                    q_b = (q + b[:, None]).flatten(1, 2)
                    _nearest(d_table, block).add_(by_distance.mT @ q_b)
                    d_q_b = by_distance @ near
                    d_b += d_q_b.sum(1, keepdim=True)
                    d_q += d_q_b.view_as(d_q)
                d_queries[:, :, block.queries] = d_q
            d_keys *= scale
            _scatter_gradients((d_keys, d_values), d_heads, d_cached, rows, plan)
        return d_heads, d_cached, scale * d_table, d_a, d_b, None, None, None


def _parts(heads: Tensor, plan: Plan) -> list[slice]:
    """Slices of the rows of the batch such that the scores of a block fit the CPU cache."""
    largest = max(block.count * block.keys for block in plan.blocks)
    size = largest * heads.shape[3] * heads.element_size()
    most = max(1, _BYTES * torch.get_num_threads() // size)
    step = -(-len(heads) // -(-len(heads) // most))  # equal parts
    return [slice(start, start + step) for start in range(0, len(heads), step)]


def _after_dropout(p: Tensor, dropout: float) -> Tensor:
    """Probabilities after dropout; those that it drops have a minus sign in `p`."""
    return p.clamp(min=0).mul_(dropout_scale(dropout)) if dropout else p


def _by_head(x: Tensor) -> Tensor:
    """A view `(H, B, T, d)` of `(B, T, H, d)`."""
    return x.permute(2, 0, 1, 3)


def _product(x: Tensor, matrices: Tensor) -> Tensor:
    """`(H, B, n, m)` times `(H * B, m, l)`: `(H, B, n, l)`."""
    return torch.bmm(x.flatten(0, 1), matrices).view(*x.shape[:3], -1)


def _keys_and_values(
    heads: Tensor, cached: Tensor | None, rows: slice, plan: Plan
) -> tuple[Tensor, Tensor]:
    """`(H * B, keys, d)` each, in the order `[read | cache | steps | write]`."""
    pieces = [heads[rows, plan.placed :, 1:], heads[rows, : plan.placed, 1:]]
    if cached is not None:
        pieces.insert(1, cached[rows])
    keys, values = (
        torch.cat([_by_head(piece[:, :, i]) for piece in pieces], dim=2).flatten(0, 1)
        for i in range(2)
    )
    return keys, values


def _scatter_gradients(
    gradients: tuple[Tensor, Tensor], d_heads: Tensor, d_cached: Tensor | None, rows: slice,
    plan: Plan,
) -> None:  # fmt: skip
    """Writes the gradients of `_keys_and_values` back to where they came from."""
    for i, gradient in enumerate(gradients):
        own = _by_head(d_heads[rows, :, 1 + i])
        gradient = gradient.view(*own.shape[:2], -1, own.shape[3])
        read, cache, placed = torch.split(gradient, [plan.read, plan.cache, plan.placed], dim=2)
        own[:, :, : plan.placed], own[:, :, plan.placed :] = placed, read
        if d_cached is not None:
            _by_head(d_cached[rows, :, i]).copy_(cache)


def _nearest(table: Tensor, block: Block) -> Tensor:
    """The part of the distance table that a block needs, rounded up."""
    return table[:, -_round_up(block.reach + 1, table.shape[1]) :]


def _timed(scores: Tensor, block: Block, plan: Plan) -> Tensor:
    """The columns of the keys that are on the time axis."""
    return scores[..., plan.read : plan.read + block.timed]


def _shifted(by_distance: Tensor, block: Block) -> Tensor:
    """A view by key, `(H, B, queries, timed)`, of scores by distance `(H, B * queries, D)`."""
    by_row = by_distance.view(len(by_distance), -1, block.count, by_distance.shape[-1])
    farther = by_distance.shape[-1] - 1 - block.reach
    return relative_shift(by_row, block.stride)[..., farther:][..., : block.timed]


def _round_up(size: int, limit: int) -> int:
    """The next multiple of a size that matrix products are fast for, at most the limit."""
    return min(-(-size // _MULTIPLE) * _MULTIPLE, limit)
