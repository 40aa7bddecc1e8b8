"""Kinds of blocks, against their equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.settings import SegmentTransformerConfig
from rate.backbones.transformer import block_size
from rate.kernels.cpu_dropout import Dropout
from rate.nn.blocks import BLOCKS, Block
from rate.nn.gates import GRUGate, HighwayGate, OutputGate, SigTanhGate
from tests.factories import TINY


def make_block(kind: str, **changes: bool) -> Block:
    config = SegmentTransformerConfig(**TINY, block=kind, **changes)
    block = Block(BLOCKS[kind], block_size(config)).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block


def attend(y: Tensor) -> Tensor:
    """A stand-in for attention: any function that is not linear and mixes the time axis."""
    return (y + y.cumsum(1)).sin()


def expected(block: Block, kind: str, x: Tensor) -> Tensor:
    feed = block.feed_forward
    assert feed is not None

    def mlp(y: Tensor) -> Tensor:
        inner = feed[1](y)
        return feed[4](F.gelu(inner) if kind == "pre_norm" else inner.relu())

    if kind == "trxl":  # x = LN(x + f(x))
        x = block.attention_residual.norm(x + attend(x))
        return block.feed_forward_residual.norm(x + mlp(x))
    for function, norm, join in (
        (attend, block.attention_norm, block.attention_residual),
        (mlp, feed[0], block.feed_forward_residual),
    ):
        update = function(norm(x))
        if kind == "trxl_i":
            x = x + update.relu()
        elif kind.startswith("gtrxl"):
            x = GATES[kind](join.gate, x, update.relu())
        elif kind == "rezero":
            x = x + 10 * join.alpha_tenth * update
        elif kind == "rezero_gtrxl":
            x = gate_by_hand(join.gate, x, x + 10 * join.alpha_tenth * update)
        else:
            x = x + update
    return x


def gate_by_hand(gate: GRUGate, x: Tensor, y: Tensor) -> Tensor:
    """Parisotto et al. 2020, section 3.2.2, one matrix at a time."""
    w_r, w_z, w_g = gate.from_update.weight.chunk(3)
    u_r, u_z = gate.from_stream.weight.chunk(2)
    r = (y @ w_r.T + x @ u_r.T).sigmoid()
    z = (y @ w_z.T + x @ u_z.T - gate.bias).sigmoid()
    h = (y @ w_g.T + (r * x) @ gate.from_reset.weight.T).tanh()
    return (1 - z) * x + z * h


# Parisotto et al. 2020, section 3.2.1: g(x, y) of a gate with matrix W and bias b.
GATES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "gtrxl": gate_by_hand,
    "gtrxl_input": lambda g, x, y: (x @ g.linear.weight.T).sigmoid() * x + y,
    "gtrxl_output": lambda g, x, y: x + (x @ g.linear.weight.T - g.bias).sigmoid() * y,
    "gtrxl_highway": lambda g, x, y: (
        (x @ g.linear.weight.T + g.bias).sigmoid() * x
        + (1 - (x @ g.linear.weight.T + g.bias).sigmoid()) * y
    ),
    "gtrxl_sigtanh": lambda g, x, y: (
        x + (y @ g.linear.weight.T - g.bias).sigmoid() * (y @ g.value.weight.T).tanh()
    ),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_equal_their_equations(kind: str) -> None:
    block, x = make_block(kind), torch.randn(2, 5, 16)
    with torch.no_grad():
        torch.testing.assert_close(block(x, attend), expected(block, kind, x))


@pytest.mark.parametrize("kind", BLOCKS)
def test_without_feed_forward_only_attention_is_left(kind: str) -> None:
    block, x = make_block(kind, skip_ffn=True), torch.randn(2, 5, 16)
    assert not any(name.startswith("feed_forward") for name, _ in block.named_parameters())
    with torch.no_grad():
        found = block(x, attend)
        assert torch.equal(found, block.attention_residual(x, attend(block.attention_norm(x))))


@pytest.mark.parametrize("gate", [GRUGate, OutputGate, HighwayGate, SigTanhGate])
def test_a_fresh_gate_is_close_to_the_identity(gate: type[nn.Module]) -> None:
    x, y = torch.randn(2, 100, 16)
    with torch.no_grad():
        change = (gate(16)(x, y) - x).abs().mean() / x.abs().mean()
    assert change < 0.4


@pytest.mark.parametrize("gate", [GRUGate, OutputGate, HighwayGate, SigTanhGate])
def test_the_bias_of_a_gate_keeps_the_stream(gate: type[nn.Module]) -> None:
    x, y = torch.randn(2, 100, 16)
    with torch.no_grad():
        torch.testing.assert_close(gate(16, 30.0)(x, y), x)


def test_a_fresh_rezero_block_is_the_identity() -> None:
    x = torch.randn(2, 5, 16)
    block = Block(BLOCKS["rezero"], block_size(SegmentTransformerConfig(**TINY)))
    assert torch.equal(block(x, attend), x)


def test_an_update_of_adam_moves_alpha_by_ten_learning_rates() -> None:
    x, config = torch.randn(2, 5, 16), SegmentTransformerConfig(**TINY, skip_ffn=True)
    block = Block(BLOCKS["rezero"], block_size(config))
    adam = torch.optim.Adam(block.parameters(), lr=1e-3)
    (block(x, attend) - attend(x)).square().sum().backward()
    adam.step()
    with torch.no_grad():
        torch.testing.assert_close(block(x, attend), x + 1e-2 * attend(x))


@pytest.mark.parametrize("kind", BLOCKS)
def test_only_gpt_has_biases_in_attention(kind: str) -> None:
    names = [n for n, _ in make_block(kind).attention.named_parameters()]
    assert ("qkv.bias" in names) == (kind == "gpt")


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_dropout_has_its_rate_and_keeps_the_mean(p: float) -> None:
    dropout, x = Dropout(p).train(), torch.ones(1001, 999, requires_grad=True)
    torch.manual_seed(0)
    out = dropout(x)
    share, error = float((out == 0).float().mean()), 5 * math.sqrt(p * (1 - p)) / 1000
    assert abs(share - p) < error
    assert abs(float(out.detach().mean()) - 1) < error / (1 - p)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    torch.manual_seed(0)
    assert torch.equal(dropout(x), out)
    assert not torch.equal(dropout(x), out)


def test_dropout_is_the_identity_in_evaluation_and_at_zero() -> None:
    x = torch.randn(7, 3)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)


@pytest.mark.parametrize("kind", BLOCKS)
def test_selecting_tokens_after_attention_does_not_change_them(kind: str) -> None:
    block, x = make_block(kind), torch.randn(2, 7, TINY["d_model"])
    found = block(x, lambda y: attend(y)[:, 1::3], lambda y: y[:, 1::3])
    torch.testing.assert_close(found, block(x, attend)[:, 1::3], rtol=0, atol=1e-6)
