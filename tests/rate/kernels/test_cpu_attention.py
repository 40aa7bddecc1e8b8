"""The attention kernel, against plain attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import rate.kernels.cpu_attention
from rate.kernels.cpu_attention import QUERIES, RelativeAttention, make_plan
from rate.nn.attention import Attention
from rate.nn.attention_mask import SegmentMask, geometry_mask

STEPS, D_MODEL, ROWS = 2 * QUERIES + 3, 8, 3
OBSERVATIONS = slice(1, None, 3)
CASES = [(0, 0, None), (7, 0, None), (0, 4, None), (7, 4, None), (150, 20, None), (0, 0, 24)]


def make_attention(dropout: float = 0.0) -> Attention:
    torch.manual_seed(0)
    attention = Attention(D_MODEL, 2, 5, dropout=dropout).double().train()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return attention


def make_inputs(
    cache: int, memory: int, window: int | None
) -> tuple[Tensor, Tensor | None, SegmentMask]:
    """A batch whose second row is padded and whose third has a cache that is half empty."""
    mask = geometry_mask(cache, STEPS, memory, 3, window, torch.device("cpu"))
    seen = torch.ones(ROWS, mask.shape[1], dtype=torch.bool)
    seen[1, cache + STEPS // 2 : cache + STEPS] = False
    seen[2, : cache // 2] = False
    segment_mask = SegmentMask(cache, STEPS, memory, memory, mask & seen[:, None, None, :])
    x = torch.randn(ROWS, STEPS + 2 * memory, D_MODEL, dtype=torch.float64, requires_grad=True)
    cached = torch.randn(ROWS, cache, D_MODEL, dtype=torch.float64, requires_grad=True)
    return x, cached if cache else None, segment_mask


def outcome(
    attention: Attention,
    x: Tensor,
    cached: Tensor | None,
    segment_mask: SegmentMask,
    steps: slice | None,
) -> dict[str, Tensor]:
    """The outputs of queries with at least one key, and all their gradients."""
    visible = segment_mask.select_queries(segment_mask.mask, steps).any(-1)[:, 0, :, None]
    out = attention(x, cached, segment_mask, steps) * visible
    named = dict(attention.named_parameters()) | {"x": x}
    if cached is not None:
        named["cached"] = cached
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    gradients = torch.autograd.grad((out * weights).sum(), list(named.values()))
    return {"out": out.detach(), **dict(zip(named, gradients, strict=True))}


@pytest.mark.parametrize("cache_bytes", [1, 2**20], ids=["row-by-row", "all-rows"])
@pytest.mark.parametrize("steps", [None, OBSERVATIONS, slice(2, None, 5)])
@pytest.mark.parametrize(("cache", "memory", "window"), CASES)
def test_blocks_compute_what_plain_attention_does(
    cache: int,
    memory: int,
    window: int | None,
    steps: slice | None,
    cache_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attention, inputs = make_attention(), make_inputs(cache, memory, window)
    monkeypatch.setattr(rate.kernels.cpu_attention, "_BYTES", cache_bytes)
    found = outcome(attention, *inputs, steps)
    monkeypatch.setattr(Attention, "_in_blocks", lambda *_: False)
    expected = outcome(attention, *inputs, steps)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("asking", [None, OBSERVATIONS])
@pytest.mark.parametrize(("cache", "memory"), [(0, 0), (3, 0), (0, 2), (3, 2)])
def test_the_gradient_equals_finite_differences(
    cache: int, memory: int, asking: slice | None
) -> None:
    steps, heads, width = 9, 2, 3
    ranges = SegmentMask(cache, steps, memory, memory, torch.empty(0)).query_ranges(asking)
    plan = make_plan(cache, steps, memory, memory, ranges, queries=2)
    mask = geometry_mask(cache, steps, memory, 3, None, torch.device("cpu")).roll(memory, -1)
    bias = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e30)
    shapes = [
        (2, steps + 2 * memory, 3, heads, width),
        (2, cache, 2, heads, width),
        (heads, cache + max(part.end for part in ranges) + 1, width),
        (heads, 1, width),
        (heads, 1, width),
    ]
    tensors: list[Tensor | None] = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
    ]
    if not cache:
        tensors[1] = None
    bias = bias.expand(1, 2, -1, -1)
    assert torch.autograd.gradcheck(RelativeAttention.apply, (*tensors, bias, plan))


@pytest.mark.parametrize("asking", [None, OBSERVATIONS])
@pytest.mark.parametrize("queries", [1, 4, 16, 1000])
@pytest.mark.parametrize(("cache", "steps", "memory"), [(0, 9, 0), (0, 30, 3), (40, 30, 5)])
def test_a_plan_has_every_query_once_and_all_of_its_keys(
    cache: int, steps: int, memory: int, queries: int, asking: slice | None
) -> None:
    mask = geometry_mask(cache, steps, memory, 3, None, torch.device("cpu")).roll(memory, -1)
    seen = torch.zeros(len(mask), dtype=torch.int64)
    segment_mask = SegmentMask(cache, steps, memory, memory, torch.empty(0))
    plan = make_plan(cache, steps, memory, memory, segment_mask.query_ranges(asking), queries)
    for block in plan.blocks:
        seen[block.queries] += 1
        assert len(seen[block.queries]) == block.count
        assert block.keys <= mask.shape[1]
        assert not mask[block.queries, block.keys :].any()
    wanted = segment_mask.select_queries(torch.arange(len(mask))[:, None], asking)[:, 0]
    assert seen.nonzero()[:, 0].tolist() == wanted.tolist()
    assert seen.sum() == len(wanted) == plan.rows


def test_dropout_drops_and_scales_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel samples in another order, so that both get one mask that depends on the key."""
    attention, inputs = make_attention(dropout=0.25), make_inputs(0, 0, None)
    keys = torch.arange(STEPS)

    def by_key(shape: torch.Size, share: float) -> Tensor:
        return (keys[: shape[-1]] % 4 > 0).expand(shape)

    def dropout(p: Tensor, share: float, training: bool) -> Tensor:
        return p * by_key(p.shape, share) / (1 - share)

    monkeypatch.setattr(rate.kernels.cpu_attention, "dropout_mask", by_key)
    monkeypatch.setattr("rate.nn.attention.F.dropout", dropout)
    found = outcome(attention, *inputs, None)
    monkeypatch.setattr(Attention, "_in_blocks", lambda *_: False)
    expected = outcome(attention, *inputs, None)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_dropout_in_blocks_is_unbiased_and_off_in_evaluation() -> None:
    attention, (x, _, segment_mask) = make_attention(dropout=0.25), make_inputs(0, 0, None)
    outs = torch.stack([attention(x, None, segment_mask) for _ in range(200)])
    expected = attention.eval()(x, None, segment_mask)
    assert torch.equal(expected, attention(x, None, segment_mask))
    spread = outs.std(0) / 200**0.5
    assert ((outs.mean(0) - expected).abs() < 6 * spread + 1e-12).all()
    assert (spread[:, 1:] > 0).all()  # the first query has one key: all or nothing, scaled


def test_a_fully_masked_row_is_finite() -> None:
    attention, (x, _, segment_mask) = make_attention(), make_inputs(0, 0, None)
    segment_mask.mask[1] = False
    out = attention(x, None, segment_mask)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_when_the_kernel_is_not_used() -> None:
    x = torch.randn(2, QUERIES + 1, D_MODEL, dtype=torch.float64)
    assert make_attention()._in_blocks(x)
    assert not make_attention()._in_blocks(x[:, 1:])
    with torch.no_grad():
        assert not make_attention()._in_blocks(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not make_attention()._in_blocks(x)
