"""Attention with relative positions, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rate.architecture import make_config
from rate.backbones.segment_transformer import SegmentState
from rate.nn.attention import Attention
from rate.nn.attention_mask import SegmentMask, geometry_mask, masked_bias
from rate.nn.positions import relative_shift, sinusoidal_embedding
from tests.factories import RATE, TINY, K, make_model

HEADS, D_HEAD, D_MODEL = 2, 5, 8


def make_attention(**kwargs: bool) -> Attention:
    attention = Attention(D_MODEL, HEADS, D_HEAD, **kwargs).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return attention


def by_hand(
    attention: Attention, x: Tensor, cache: Tensor | None, segment_mask: SegmentMask
) -> Tensor:
    """(q_i + u) . k_j + (q_i + v) . W_r r_{i-j}, one query and one key at a time."""
    history = x if cache is None else torch.cat((cache, x), dim=1)
    width = HEADS * D_HEAD
    weight, bias = attention.qkv.weight.double(), torch.zeros(3 * width, dtype=torch.float64)
    if attention.qkv.bias is not None:
        bias = attention.qkv.bias.double()
    queries = (x.double() @ weight[:width].T + bias[:width]).unflatten(-1, (HEADS, D_HEAD))
    keys = (history.double() @ weight[width:].T + bias[width:]).unflatten(-1, (2, HEADS, D_HEAD))
    placed_queries, placed_keys = (
        segment_mask.steps + segment_mask.write,
        segment_mask.cache + segment_mask.steps,
    )
    mixed = torch.zeros(*x.shape[:2], HEADS, D_HEAD, dtype=torch.float64)
    for row, i, head in torch.cartesian_prod(*(torch.arange(n) for n in mixed.shape[:3])).tolist():
        query, scores = queries[row, i, head], []
        for j in range(history.shape[1]):
            score = query @ keys[row, j, 0, head]
            if attention.relative:
                score = (query + attention.content_bias[head, 0]) @ keys[row, j, 0, head]
                if i < placed_queries and j < placed_keys:
                    distance = torch.tensor([float(segment_mask.cache + i - j)])
                    r = attention.position(sinusoidal_embedding(distance, D_MODEL))[0].double()
                    r = r.unflatten(0, (HEADS, D_HEAD))[head]
                    score = score + (query + attention.position_bias[head, 0]) @ r
            visible = bool(segment_mask.mask[row, 0, i, j])
            scores.append(score / math.sqrt(D_HEAD) if visible else torch.tensor(-math.inf))
        weights = torch.stack([s.double() for s in scores]).softmax(0)
        mixed[row, i, head] = weights @ keys[row, :, 1, head]
    return attention.out(mixed.flatten(2).float())


@pytest.mark.parametrize("relative", [True, False], ids=["relative", "content"])
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no-biases"])
@pytest.mark.parametrize(("cache", "memory"), [(0, 0), (4, 0), (0, 2), (4, 2)])
def test_fused_attention_equals_the_equation(
    relative: bool, bias: bool, cache: int, memory: int
) -> None:
    attention, steps = make_attention(relative=relative, bias=bias), 6
    x = torch.randn(2, steps + 2 * memory, D_MODEL)
    cached = torch.randn(2, cache, D_MODEL) if cache else None
    mask = geometry_mask(cache, steps, memory, 3, None, torch.device("cpu"))
    key_mask = torch.ones(2, 1, 1, mask.shape[1], dtype=torch.bool)
    key_mask[1, ..., : cache // 2] = False
    segment_mask = SegmentMask(cache, steps, memory, memory, mask & key_mask)
    with torch.no_grad():
        expected = by_hand(attention, x, cached, segment_mask)
        torch.testing.assert_close(attention(x, cached, segment_mask), expected, rtol=0, atol=2e-6)
        some = slice(1, None, 3)
        found, expected = (
            attention(x, cached, segment_mask, some),
            segment_mask.select_queries(expected, some),
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("queries", "distances"), [(1, 1), (1, 5), (4, 4), (3, 7), (6, 20)])
def test_relative_shift_against_a_loop(queries: int, distances: int) -> None:
    scores = torch.randn(2, 3, queries, distances + 1)
    shifted = relative_shift(scores)
    assert shifted.shape == (2, 3, queries, distances)
    assert shifted._base is scores
    for i in range(queries):
        for j in range(distances):
            distance = distances - queries + i - j
            if distance >= 0:
                assert torch.equal(shifted[..., i, j], scores[..., i, distances - distance])


@pytest.mark.parametrize(("queries", "distances", "stride"), [(1, 4, 3), (3, 10, 3), (4, 9, 2)])
def test_a_shift_of_several_steps_against_a_loop(queries: int, distances: int, stride: int) -> None:
    scores = torch.randn(2, 3, queries, distances + 1)
    shifted = relative_shift(scores, stride)
    assert shifted.shape == (2, 3, queries, distances + 1 - stride)
    for i in range(queries):
        for j in range(distances + 1 - stride):
            distance = distances - stride * (queries - i) - j
            if distance >= 0:
                assert torch.equal(shifted[..., i, j], scores[..., i, distances - distance])


def test_sinusoids_are_distinct_and_bounded() -> None:
    table = sinusoidal_embedding(torch.arange(300), 16)
    assert table.shape == (300, 16)
    assert table.abs().max() <= 1
    torch.testing.assert_close(table[0], torch.cat((torch.zeros(8), torch.ones(8))))
    assert (torch.cdist(table, table) + 10 * torch.eye(300)).min() > 0.1


def test_distance_scores_depend_on_distance_alone() -> None:
    """A decoder indexes a table of distances, a segment shifts a matrix: the same numbers."""
    attention, queries = make_attention(), torch.randn(1, HEADS, 6, D_HEAD)
    with torch.no_grad():
        short = attention.distance_scores(queries, attention.distance_table(7, queries.device))
        long = attention.distance_scores(queries, attention.distance_table(40, queries.device))
        torch.testing.assert_close(long[..., -7:], short)
        shifted = relative_shift(short)
    for i in range(6):
        for j in range(i + 1):
            torch.testing.assert_close(shifted[..., i, j], long[..., i, 40 - 1 - (i - j)])


def test_fully_masked_rows_are_finite_and_masked_keys_have_no_weight() -> None:
    attention, x = make_attention(), torch.randn(2, 5, D_MODEL, requires_grad=True)
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    mask[1] = False
    mask[0, ..., 2] = False
    out = attention(x, None, SegmentMask(0, 5, 0, 0, mask))
    assert torch.isfinite(out).all()
    out[0, [0, 1, 3, 4]].sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert not x.grad[0, 2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masked_bias_is_finite_in_every_precision(dtype: torch.dtype) -> None:
    mask = torch.tensor([[True, False, False]])
    bias = masked_bias(torch.full((1, 3), 40.0, dtype=dtype), mask)
    assert torch.isfinite(bias).all()
    assert bias.float().softmax(-1).tolist() == [[1.0, 0.0, 0.0]]


def mask_by_hand(cache: int, steps: int, memory: int, window: int | None) -> Tensor:
    """The attention mask, token by token instead of by slices."""
    kinds = ["cache"] * cache + ["step"] * steps + ["write"] * memory + ["read"] * memory
    mask = torch.zeros(steps + 2 * memory, len(kinds), dtype=torch.bool)
    for i in range(steps + 2 * memory):
        for j, kind in enumerate(kinds):
            if i < steps:
                step, key_step = i // 3, (j - cache) // 3
                past = kind == "step" and j - cache <= i
                near = window is None or step - key_step < window
                mask[i, j] = kind in ("cache", "read") or (past and near)
            elif i < steps + memory:
                mask[i, j] = kind in ("step", "write", "read")
            else:
                mask[i, j] = kind == "read"
    return mask


@pytest.mark.parametrize(
    ("cache", "steps", "memory", "window"),
    [(0, 12, 0, None), (5, 12, 0, None), (0, 12, 3, None), (7, 9, 2, None), (0, 18, 0, 2)],
)
def test_geometry_mask(cache: int, steps: int, memory: int, window: int | None) -> None:
    found = geometry_mask(cache, steps, memory, 3, window, torch.device("cpu"))
    assert torch.equal(found, mask_by_hand(cache, steps, memory, window))


def test_memory_tokens_have_no_order() -> None:
    """Memory tokens permuted with their slot embeddings change no prediction."""
    model = make_model(make_config(**RATE))
    tokens, mask = torch.randn(2, K, 3, TINY["d_model"]), torch.ones(2, K, dtype=torch.bool)
    state = model.initial_state(2)
    assert isinstance(state, SegmentState)
    assert state.memory is not None
    with torch.no_grad():
        first, _ = model.segment(tokens, mask, state)
        permuted = replace(state, memory=state.memory[:, [2, 0, 1]])
        embedding = model.backbone.get_parameter("slot_embedding")
        embedding.copy_(embedding[[2, 0, 1]])
        second, _ = model.segment(tokens, mask, permuted)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)
