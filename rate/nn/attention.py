"""Multi-head attention with the relative positions of Transformer-XL.

The score of query i and key j (Dai et al. 2019, section 3.3) is

    (q_i + u) . k_j  +  (q_i + v) . W_r r_{i-j}

The second term depends on the distance i - j alone. It is computed for every distance at once and
given to `scaled_dot_product_attention` as an additive bias, so that one fused call does the rest.
Training on a CPU computes the same in blocks: see `rate.kernels.cpu_attention`.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate import kernels
from rate.kernels.cpu_attention import QUERIES, RelativeAttention, make_plan
from rate.nn.adaptive_span import AdaptiveSpan
from rate.nn.attention_mask import QueryRange, SegmentMask, masked_bias
from rate.nn.positions import relative_shift, sinusoidal_embedding
from rate.tracing import is_exporting

_ALIGNED_KEYS = 16  # keys, of 2 or 4 bytes each: what the strictest kernel asks for


def plain_attention(
    queries: Tensor, keys: Tensor, values: Tensor, biases: tuple[Tensor, ...], dropout: float
) -> Tensor:
    """`scaled_dot_product_attention` under finite biases, in as few passes as possible.

    On a CPU, PyTorch has no fused kernel for a bias that has a gradient: its fallback reads and
    writes the scores twice as often. It is no faster for the three queries of a decoded step.

    Args:
        queries: `(B, H, Q, d)`.
        keys: `(B, H, K, d)`.
        values: `(B, H, K, d)`.
        biases: Added to the scores; each expands to `(B, H, Q, K)`.
        dropout: Dropout of the attention probabilities.
    """
    scores = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-1, -2)
    for bias in biases:
        scores += bias
    return F.dropout(scores.softmax(-1), dropout, training=dropout > 0) @ values


def fused_attention(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, dropout: float = 0.0
) -> Tensor:
    """`scaled_dot_product_attention` under a bias, for any number of keys on a GPU.

    Its kernels there read the bias 16 bytes at a time. PyTorch pads it for them, but not in a
    compiled model, which stops or reads at a wrong address where rows of the bias are not aligned.

    Args:
        queries: `(B, H, Q, d)`.
        keys: `(B, H, K, d)`.
        values: `(B, H, K, d)`.
        bias: Added to the scores; expands to `(B, H, Q, K)`.
        dropout: Dropout of the attention probabilities.
    """
    if is_exporting():  # other runtimes fuse it as they like
        return plain_attention(queries, keys, values, (bias,), dropout)
    missing = -keys.shape[2] % _ALIGNED_KEYS if queries.is_cuda else 0
    if missing:
        keys, values = (F.pad(x, (0, 0, 0, missing)) for x in (keys, values))
        bias = F.pad(bias, (0, missing), value=-math.inf)
    return F.scaled_dot_product_attention(queries, keys, values, bias, dropout_p=dropout)


class Attention(nn.Module):
    """Multi-head attention with fused query, key and value projections.

    Args:
        d_model: Width of the input.
        num_heads: Number of heads.
        d_head: Width of a head; need not be `d_model / num_heads`.
        dropout: Dropout of the attention probabilities.
        relative: Whether scores depend on distance (Transformer-XL). Without it they depend on
            content only, and positions have to be in the input (GPT).
        bias: Whether the projections have biases (GPT-2 has them, Transformer-XL does not).
        span: How far back every head looks, with relative positions alone; None is without limit.
        persistent: Learned keys and values of every head, at no position, that all queries attend
            to (Sukhbaatar et al. 2019, arXiv 1907.01470, section 3).
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_head: int,
        *,
        dropout: float = 0.0,
        relative: bool = True,
        bias: bool = False,
        span: AdaptiveSpan | None = None,
        persistent: int = 0,
    ) -> None:
        super().__init__()
        self.num_heads, self.d_head = num_heads, d_head
        self.dropout, self.relative, self.bias, self.span = dropout, relative, bias, span
        inner = num_heads * d_head
        self.qkv = nn.Linear(d_model, 3 * inner, bias=bias)
        self.out = nn.Linear(inner, d_model, bias=bias)
        if relative:
            self.position = nn.Linear(d_model, inner, bias=False)
            self.content_bias = nn.Parameter(torch.zeros(num_heads, 1, d_head))  # u
            self.position_bias = nn.Parameter(torch.zeros(num_heads, 1, d_head))  # v
        self.persistent = persistent
        if persistent:  # the size of keys and values that projections have
            self.persistent_keys = nn.Parameter(torch.randn(num_heads, persistent, d_head))
            self.persistent_values = nn.Parameter(torch.randn(num_heads, persistent, d_head))

    def forward(
        self, x: Tensor, cache: Tensor | None, segment_mask: SegmentMask, steps: slice | None = None
    ) -> Tensor:
        """Attention of the tokens of a segment to each other and to the cache.

        Args:
            x: `(B, T, d_model)` tokens in the order of `SegmentMask`.
            cache: `(B, C, d_model)` cached hidden states, or None where there is no cache.
            segment_mask: The attention mask and the segment's geometry.
            steps: The step tokens that are queries, if not all tokens are; see
                `SegmentMask.select_queries`.

        Returns:
            `(B, Q, d_model)` for the queries.
        """
        if self.span is not None and cache is not None and _may_wait(x):
            cut = self.span.out_of_reach(segment_mask.cache)
            cache, segment_mask = cache[:, cut:], segment_mask.without_oldest(cut)
        if self._in_blocks(x):
            return self._attend_in_blocks(x, cache, segment_mask, steps)
        queries, keys, values, biases = self.inputs(x, cache, segment_mask, steps)
        return self.attend(queries, keys, values, *biases)

    def inputs(
        self, x: Tensor, cache: Tensor | None, segment_mask: SegmentMask, steps: slice | None
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """The queries, keys, values and biases of `attend`, from what `forward` takes."""
        queries, keys, values = self.project(x)  # (B, H, T, d_head) each
        if cache is not None:
            cached_keys, cached_values = self.project_cache(cache)
            keys = torch.cat((cached_keys, keys), dim=2)  # (B, H, C + T, d_head)
            values = torch.cat((cached_values, values), dim=2)
        queries = segment_mask.select_queries(queries, steps)  # (B, H, Q, d_head)
        mask = segment_mask.select_queries(segment_mask.mask, steps)  # (B, 1, Q, C + T)
        biases = [masked_bias(queries.new_zeros(()), mask)]
        if self.relative:
            biases.append(self._position_term(queries, segment_mask, steps))
        return queries, keys, values, biases

    def _in_blocks(self, x: Tensor) -> bool:
        """Whether `RelativeAttention` applies and is faster; it has no half precision."""
        return (
            self.relative
            and self.span is None
            and not self.persistent
            and x.shape[1] > QUERIES
            and kernels.apply_to(x)
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )

    def _attend_in_blocks(
        self, x: Tensor, cache: Tensor | None, segment_mask: SegmentMask, steps: slice | None
    ) -> Tensor:
        ranges = segment_mask.query_ranges(steps)
        heads = self.heads(x)
        table = self.distance_table(_num_distances(segment_mask.cache, ranges), x.device)
        cached = None if cache is None else self._cached_heads(cache)
        plan = make_plan(
            segment_mask.cache, segment_mask.steps, segment_mask.write, segment_mask.read, ranges
        )
        u, v = self.content_bias, self.position_bias
        mixed = RelativeAttention.apply(  # type: ignore[no-untyped-call]
            heads,
            cached,
            table,
            u,
            v,
            segment_mask.bias,
            plan,
            self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(mixed.flatten(2))
        return out

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `(B, H, T, d_head)` of `x` `(B, T, d_model)`."""
        queries, keys, values = self.heads(x).permute(2, 0, 3, 1, 4)
        return queries, keys, values

    def heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values in one tensor `(B, T, 3, H, d_head)`."""
        heads: Tensor = self.qkv(x)
        return heads.view(*x.shape[:2], 3, self.num_heads, self.d_head)

    def project_cache(self, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `(B, H, C, d_head)` of cached states `(B, C, d_model)`."""
        keys, values = self._cached_heads(cache).permute(2, 0, 3, 1, 4)
        return keys, values

    def _cached_heads(self, cache: Tensor) -> Tensor:
        """Keys and values `(B, C, 2, H, d_head)` of cached states `(B, C, d_model)`."""
        inner = self.num_heads * self.d_head
        bias = self.qkv.bias[inner:] if self.bias else None
        heads = F.linear(cache, self.qkv.weight[inner:], bias)
        return heads.view(*cache.shape[:2], 2, self.num_heads, self.d_head)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, *biases: Tensor) -> Tensor:
        """Softmax attention under additive biases, then the output projection.

        Persistent keys and values are attended to as well, without a bias.

        Args:
            queries: `(B, H, Q, d_head)`.
            keys: `(B, H, K, d_head)`.
            values: `(B, H, K, d_head)`.
            biases: Masks and position terms; each expands to `(B, H, Q, K)`.

        Returns:
            `(B, Q, d_model)`.
        """
        if self.relative:
            queries = queries + self.content_bias
        if self.persistent:
            learned = ((self.persistent_keys, keys), (self.persistent_values, values))
            keys, values = (  # (B, H, N + K, d_head)
                torch.cat((own.expand(len(known), -1, -1, -1), known), dim=2)
                for own, known in learned
            )
            biases = tuple(F.pad(bias, (self.persistent, 0)) for bias in biases)
        dropout = self.dropout if self.training else 0.0
        if self.relative and queries.device.type == "cpu":
            mixed = plain_attention(queries, keys, values, biases, dropout)
        else:
            mixed = fused_attention(queries, keys, values, reduce(add, biases), dropout)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))  # of (B, H, T, d_head)
        return out

    def distance_table(self, num_distances: int, device: torch.device) -> Tensor:
        """`W_r r` for the distances `num_distances - 1` down to 0: `(H, num_distances, d_head)`.

        An adaptive span adds a column: the logarithm of its mask.
        """
        distances = torch.arange(num_distances - 1, -1, -1, device=device)
        table = sinusoidal_embedding(distances, self.position.in_features)
        projected: Tensor = self.position(table.to(self.position.weight.dtype))
        heads = projected.view(num_distances, self.num_heads, self.d_head).transpose(0, 1)
        if self.span is None:
            return heads
        return torch.cat((heads, self.span.log_mask(distances)[..., None]), dim=-1)

    def distance_scores(self, queries: Tensor, table: Tensor) -> Tensor:
        """The scaled position term of every query for every distance of `table`: `(B, H, Q, D)`."""
        queries = (queries + self.position_bias) / math.sqrt(self.d_head)
        if self.span is not None:
            queries = F.pad(queries, (0, 1), value=1.0)  # of the mask's column
        # One product for all rows: they share the table, which `@` would copy for each of them.
        together = queries.transpose(0, 1).flatten(1, 2)  # (H, B Q, d)
        scores = torch.bmm(together, table.mT)
        return scores.view(len(table), *queries.shape[0::2], table.shape[1]).transpose(0, 1)

    def _position_term(
        self, queries: Tensor, segment_mask: SegmentMask, steps: slice | None
    ) -> Tensor:
        """The position term `(B, H, Q, keys)` of scores; 0 where a memory token is the key."""
        ranges, keys = segment_mask.query_ranges(steps), segment_mask.mask.shape[-1]
        table = self.distance_table(_num_distances(segment_mask.cache, ranges), queries.device)
        pieces, before = [], 0
        for part in ranges:
            nearest = table[:, -(segment_mask.cache + part.end + 1) :]
            scores = self.distance_scores(queries[:, :, before : before + part.count], nearest)
            by_key = relative_shift(scores, part.stride)[
                ..., : segment_mask.cache + segment_mask.steps
            ]
            pieces.append(F.pad(by_key, (0, keys - by_key.shape[-1])))
            before += part.count
        bias = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
        return F.pad(bias, (0, 0, 0, queries.shape[2] - before))


def _may_wait(x: Tensor) -> bool:
    """Whether the host may read a number that the model has computed: a GPU would have to wait."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _num_distances(cache: int, ranges: tuple[QueryRange, ...]) -> int:
    """Distances from the oldest key to the newest query, and what `relative_shift` goes beyond."""
    return cache + max(part.end for part in ranges) + 1
