"""Linear layers in pieces, against PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import rate.nn.linear
from rate.nn.linear import Linear, linear


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Several threads, and work that is always worth cutting up."""
    before = torch.get_num_threads()
    monkeypatch.setattr(rate.nn.linear, "_LEAST_WORK", 0)
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of pieces that products were cut into."""
    seen: list[int] = []
    apply = rate.nn.linear._InPieces.apply

    def counted(x: Tensor, *others: Tensor) -> Tensor:
        seen.append(len(x))
        return apply(x, *others)

    monkeypatch.setattr(rate.nn.linear._InPieces, "apply", counted)
    return seen


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("shape", "pieces"), [((6, 5), 3), ((2, 4, 5), 4), ((5, 7, 5), 5)])
def test_pieces_compute_what_the_whole_does(
    shape: tuple[int, ...], pieces: int, bias: bool, cut: list[int]
) -> None:
    torch.manual_seed(0)
    layer = Linear(5, 7, bias=bias).double()
    x = torch.randn(shape, dtype=torch.float64).requires_grad_()
    tensors = [x, *layer.parameters()]
    found = layer(x)
    assert cut == [pieces]
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(found)
    gradients = (torch.autograd.grad((out * weights).sum(), tensors) for out in (found, expected))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("threads")
def test_what_needs_no_gradient_gets_none(cut: list[int]) -> None:
    weight = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    linear(torch.randn(6, 5, dtype=torch.float64), weight).sum().backward()
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    linear(x, weight.detach(), torch.zeros(4, dtype=torch.float64)).sum().backward()
    assert len(cut) == 2
    assert weight.grad is not None
    assert x.grad is not None


@pytest.mark.usefixtures("threads")
def test_where_pieces_are_of_no_use(cut: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(5, 7), torch.randn(6, 5)
    layer(torch.randn(13, 5))  # nothing divides
    with torch.no_grad():
        layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    torch.set_num_threads(1)
    layer(x)
    torch.set_num_threads(3)
    monkeypatch.setattr(rate.nn.linear, "_LEAST_WORK", 1_000_000)
    layer(x)
    assert cut == []
