"""Where the public model's equations are ours, and in what they differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rate.nn.attention_mask import SegmentMask, geometry_mask
from rate.nn.blocks import BLOCKS, Block, BlockSize
from rate.reference.blocks import PublicBlock
from rate.reference.config import ReferenceConfig

ROWS, WIDTH, HEADS, HEAD = 7, 16, 2, 6
FREQUENCIES = 1 / 10_000 ** (torch.arange(0, WIDTH, 2) / WIDTH)


def public_block(**changes: Any) -> PublicBlock:
    arguments = {"env_name": "tmaze", "act_dim": 4, "n_layer": 1, "n_head": HEADS}
    arguments |= {"d_model": WIDTH, "d_head": HEAD, "d_inner": 20, "mem_len": 0}
    arguments |= {"num_mem_tokens": 0, "n_head_ca": 0, "mem_at_end": False}
    torch.manual_seed(0)
    block = PublicBlock(ReferenceConfig(**{**arguments, **changes})).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block


def segment_mask(cache: int) -> SegmentMask:
    mask = geometry_mask(cache, ROWS, 0, 1, None, torch.device("cpu"))
    return SegmentMask(cache, ROWS, 0, 0, mask[None, None])


def our_block(kind: str, theirs: PublicBlock) -> Block:
    """Our block of a kind with the public one's weights."""
    block = Block(BLOCKS[kind], BlockSize(WIDTH, HEADS, HEAD, 20)).eval()
    block.attention.load_state_dict(theirs.attention.state_dict())
    assert block.feed_forward is not None
    assert theirs.feed_forward is not None
    for ours, linear in ((1, 0), (4, 2)):
        block.feed_forward[ours].load_state_dict(theirs.feed_forward[linear].state_dict())
    norms = (theirs.attention_norm, theirs.feed_forward_norm)
    if kind == "trxl":
        pairs = zip(
            (block.attention_residual.norm, block.feed_forward_residual.norm), norms, strict=True
        )
    else:
        pairs = zip((block.attention_norm, block.feed_forward[0]), norms, strict=True)
    for mine, norm in pairs:
        mine.load_state_dict(norm.state_dict())
    if kind == "gtrxl":
        block.attention_residual.gate.load_state_dict(theirs.attention_gate.state_dict())
        block.feed_forward_residual.gate.load_state_dict(theirs.feed_forward_gate.state_dict())
    return block


@pytest.mark.parametrize("cache", [0, 5])
def test_attention_of_step_tokens_is_ours(cache: int) -> None:
    block, x = public_block(mem_len=cache), torch.randn(2, ROWS, WIDTH)
    cached = torch.randn(2, cache, WIDTH) if cache else None
    with torch.no_grad():
        found = block.attend(x, cached, FREQUENCIES)
        expected = block.attention(x, cached, segment_mask(cache))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["trxl", "trxl_i", "gtrxl"])
def test_blocks_differ_from_ours_by_one_more_residual(kind: str) -> None:
    """Public attention adds its own input; where a block normalises first, the normalised one."""
    theirs = public_block(use_stable_version=kind != "trxl", use_gate=kind == "gtrxl")
    ours, x = our_block(kind, theirs), torch.randn(2, ROWS, WIDTH)

    def attend(y: Tensor, again: float) -> Tensor:
        return again * y + ours.attention(y, None, segment_mask(0))

    with torch.no_grad():
        found = theirs(x, None, FREQUENCIES)
        torch.testing.assert_close(found, ours(x, lambda y: attend(y, 1.0)), rtol=0, atol=1e-5)
        assert not torch.allclose(found, ours(x, lambda y: attend(y, 0.0)), atol=1e-2)


def test_memory_rows_are_not_ours() -> None:
    """They attend to later keys, whose position scores the relative shift leaves undefined.

    Ours are not on the time axis, and attend to each other by content alone.
    """
    block, x = public_block(num_mem_tokens=2, mem_at_end=True), torch.randn(2, ROWS + 4, WIDTH)
    order = torch.tensor([*range(2, ROWS + 4), 0, 1])  # ours: steps, write, read
    mask = geometry_mask(0, ROWS, 2, 1, None, torch.device("cpu"))
    with torch.no_grad():
        found = block.attend(x, None, FREQUENCIES)[:, order]
        seen = SegmentMask(0, ROWS, 2, 2, mask[None, None])
        expected = block.attention(x[:, order], None, seen)
    assert not torch.allclose(found, expected, atol=1e-2)
