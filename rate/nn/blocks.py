"""Transformer blocks: where the norm stands and how a sub-layer joins the residual stream.

A kind of block is one line in `BLOCKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.nn.attention import Attention
from rate.nn.dropout import Dropout
from rate.nn.gates import GRUGate
from rate.nn.linear import Linear


class Add(nn.Module):
    """x + y, the output y of a sub-layer joining the stream x."""

    def __init__(self, d_model: int) -> None:
        super().__init__()

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return stream + update


class AddThenNorm(Add):
    """LN(x + y) (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        joined: Tensor = self.norm(stream + update)
        return joined


class AddReLU(Add):
    """x + ReLU(y), identity map reordering (Parisotto et al. 2020, section 3.1)."""

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return stream + torch.relu(update)


class GateReLU(Add):
    """gate(x, ReLU(y)), GTrXL (Parisotto et al. 2020, section 3.2)."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.gate = GRUGate(d_model)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        joined: Tensor = self.gate(stream, torch.relu(update))
        return joined


class GatedUnit(nn.Module):
    """The hidden units of SwiGLU, `(x W) * silu(x V)` (Shazeer 2020, section 2).

    Products of what the stream holds: what a memory means for what is seen is learnt sooner.
    """

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.linear = Linear(d_model, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.linear(x).chunk(2, dim=-1)
        hidden: Tensor = value * F.silu(gate)
        return hidden


def init_gpt(module: nn.Module) -> None:
    """GPT-2's initialisation of linear layers, as Decision Transformer has it."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class BlockKind:
    """What tells one kind of block from another.

    Attributes:
        join: How the output of a sub-layer joins the residual stream.
        norm_first: Whether sub-layers read a normalised stream. The stream as a whole is then
            normalised after the last block.
        activation: That of a feed-forward layer.
        bias: Whether the projections of attention have biases.
        init: Applied to every module of the blocks after PyTorch's own initialisation.
    """

    join: type[Add] = Add
    norm_first: bool = True
    activation: type[nn.Module] = nn.ReLU
    bias: bool = False
    init: Callable[[nn.Module], None] | None = None


BLOCKS: dict[str, BlockKind] = {
    "pre_norm": BlockKind(activation=nn.GELU),
    "trxl": BlockKind(AddThenNorm, norm_first=False),
    "trxl_i": BlockKind(AddReLU),
    "gtrxl": BlockKind(GateReLU),
    "gpt": BlockKind(bias=True, init=init_gpt),
}


@dataclass(frozen=True)
class BlockSize:
    """The widths of a block and what it drops.

    Attributes:
        d_model: Width of the residual stream.
        num_heads: Attention heads.
        d_head: Width of a head.
        d_ff: Inner width of the feed-forward layer; 0 leaves it out.
        swiglu: Whether its hidden units are gated (`GatedUnit`).
        relative: Whether attention sees distances (Transformer-XL).
        dropout: Dropout of what sub-layers put out.
        attention_dropout: Dropout of attention probabilities.
    """

    d_model: int
    num_heads: int
    d_head: int
    d_ff: int
    swiglu: bool = False
    relative: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0


class Block(nn.Module):
    """Attention and a feed-forward layer, in one of the arrangements of `BLOCKS`."""

    def __init__(self, kind: BlockKind, size: BlockSize) -> None:
        super().__init__()
        d_model = size.d_model
        self.attention_norm = nn.LayerNorm(d_model) if kind.norm_first else nn.Identity()
        self.attention = Attention(
            d_model,
            size.num_heads,
            size.d_head,
            dropout=size.attention_dropout,
            relative=size.relative,
            bias=kind.bias,
        )
        self.attention_join = kind.join(d_model)
        self.dropout = Dropout(size.dropout)
        self.feed_forward: nn.Sequential | None = None
        if size.d_ff:
            hidden = (
                [GatedUnit(d_model, size.d_ff)]
                if size.swiglu
                else [Linear(d_model, size.d_ff), kind.activation()]
            )
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(d_model) if kind.norm_first else nn.Identity(),
                *hidden,
                Dropout(size.dropout),
                Linear(size.d_ff, d_model),
                Dropout(size.dropout),
            )
            self.feed_forward_join = kind.join(d_model)

    def forward(
        self,
        x: Tensor,
        attend: Callable[[Tensor], Tensor],
        select: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """One block over `x` `(B, T, d_model)`.

        Args:
            x: The residual stream.
            attend: Attention over the normalised stream. A whole segment and a single step look
                at different keys; the block around them is the same. It may answer for the last
                tokens alone, and then only these go on.
            select: Picks the tokens of `x` that `attend` answers for, where these are others.
        """
        update = attend(self.attention_norm(x))
        if select is not None:
            x = select(x)
        update = self.dropout(update)
        x = self.attention_join(x[:, -update.shape[1] :], update)
        if self.feed_forward is not None:
            x = self.feed_forward_join(x, self.feed_forward(x))
        return x
