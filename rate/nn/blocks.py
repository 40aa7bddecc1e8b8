"""Transformer blocks: pre-norm or post-norm, and the residual connection around a sub-layer.

A kind of block is one line in `BLOCKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.kernels.cpu_dropout import Dropout
from rate.nn.adaptive_span import AdaptiveSpan
from rate.nn.attention import Attention
from rate.nn.gates import GRUGate, HighwayGate, InputGate, OutputGate, SigTanhGate


class Residual(nn.Module):
    """x + y, the residual connection of the stream x and the output y of a sub-layer."""

    def __init__(self, d_model: int) -> None:
        super().__init__()

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return stream + update


class PostNormResidual(Residual):
    """LN(x + y) (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        out: Tensor = self.norm(stream + update)
        return out


class ReLUResidual(Residual):
    """x + ReLU(y), identity map reordering (Parisotto et al. 2020, section 3.1)."""

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return stream + torch.relu(update)


class GatedResidual(Residual):
    """gate(x, ReLU(y)), GTrXL (Parisotto et al. 2020, section 3.2)."""

    def __init__(self, d_model: int, gate: type[nn.Module] = GRUGate) -> None:
        super().__init__(d_model)
        self.gate = gate(d_model)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        out: Tensor = self.gate(stream, torch.relu(update))
        return out


class ReZeroResidual(Residual):
    """x + alpha y, with alpha = 0 at the start of training (ReZero, Bachlechner et al. 2021).

    The public code has one alpha for both sub-layers of a block; here each has its own.

    The parameter is alpha / 10, so that Adam, whose steps are as long as the learning rate, moves
    alpha ten times as fast. At 1e-3 alpha itself would be closed for hundreds of updates, and
    sub-layers have no gradient before it opens: T-Maze was at chance after 200 updates, and is
    learnt after 80.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.alpha_tenth = nn.Parameter(torch.zeros(()))

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return stream + 10 * self.alpha_tenth * update


class ReZeroGatedResidual(ReZeroResidual):
    """gate(x, x + alpha y), the GRU gate of GTrXL over the connection of ReZero."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.gate = GRUGate(d_model)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        out: Tensor = self.gate(stream, super().forward(stream, update))
        return out


class GatedUnit(nn.Module):
    """The hidden units of SwiGLU, `(x W) * silu(x V)` (Shazeer 2020, section 2).

    Its units are products of features of the stream: how a memory token changes the meaning of an
    observation is learnt sooner.
    """

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.linear(x).chunk(2, dim=-1)
        hidden: Tensor = value * F.silu(gate)
        return hidden


def init_gpt(module: nn.Module) -> None:
    """GPT-2's initialisation of linear layers, as in Decision Transformer."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class BlockKind:
    """The settings in which kinds of blocks differ.

    Attributes:
        residual: Makes the residual connection around a sub-layer, of a width.
        norm_first: Pre-norm: sub-layers read a normalised stream. The residual stream is then
            normalised once more after the last block. Otherwise the connections normalise, or
            (ReZero) nothing does.
        activation: Activation of the feed-forward layer.
        bias: Whether the projections of attention have biases.
        init: Applied to every module of the blocks after PyTorch's own initialisation.
    """

    residual: Callable[[int], Residual] = Residual
    norm_first: bool = True
    activation: type[nn.Module] = nn.ReLU
    bias: bool = False
    init: Callable[[nn.Module], None] | None = None


BLOCKS: dict[str, BlockKind] = {
    "pre_norm": BlockKind(activation=nn.GELU),
    "trxl": BlockKind(PostNormResidual, norm_first=False),
    "trxl_i": BlockKind(ReLUResidual),
    "gtrxl": BlockKind(GatedResidual),
    "gtrxl_input": BlockKind(partial(GatedResidual, gate=InputGate)),
    "gtrxl_output": BlockKind(partial(GatedResidual, gate=OutputGate)),
    "gtrxl_highway": BlockKind(partial(GatedResidual, gate=HighwayGate)),
    "gtrxl_sigtanh": BlockKind(partial(GatedResidual, gate=SigTanhGate)),
    "rezero": BlockKind(ReZeroResidual, norm_first=False),
    "rezero_gtrxl": BlockKind(ReZeroGatedResidual, norm_first=False),
    "gpt": BlockKind(bias=True, init=init_gpt),
}


@dataclass(frozen=True)
class BlockSize:
    """The widths and dropout rates of a block.

    Attributes:
        d_model: Width of the residual stream.
        num_heads: Attention heads.
        d_head: Width of a head.
        d_ff: Inner width of the feed-forward layer; 0 leaves it out.
        swiglu: Whether its hidden units are gated (`GatedUnit`).
        relative: Whether attention has relative positions (Transformer-XL).
        dropout: Dropout of the outputs of sub-layers.
        attention_dropout: Dropout of attention probabilities.
        span: The longest adaptive attention span, in tokens; 0 is none.
        span_ramp: Its ramp, in tokens.
        persistent: Learned keys and values of every head.
    """

    d_model: int
    num_heads: int
    d_head: int
    d_ff: int
    swiglu: bool = False
    relative: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    span: int = 0
    span_ramp: int = 1
    persistent: int = 0


class Block(nn.Module):
    """Attention and a feed-forward layer, each with its residual connection; a kind of `BLOCKS`."""

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
            span=AdaptiveSpan(size.num_heads, size.span, size.span_ramp) if size.span else None,
            persistent=size.persistent,
        )
        self.attention_residual = kind.residual(d_model)
        self.dropout = Dropout(size.dropout)
        self.feed_forward: nn.Sequential | None = None
        if size.d_ff:
            hidden = (
                [GatedUnit(d_model, size.d_ff)]
                if size.swiglu
                else [nn.Linear(d_model, size.d_ff), kind.activation()]
            )
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(d_model) if kind.norm_first else nn.Identity(),
                *hidden,
                Dropout(size.dropout),
                nn.Linear(size.d_ff, d_model),
                Dropout(size.dropout),
            )
            self.feed_forward_residual = kind.residual(d_model)

    def forward(
        self,
        x: Tensor,
        attend: Callable[[Tensor], Tensor],
        select: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """One block over `x` `(B, T, d_model)`.

        Args:
            x: The residual stream.
            attend: Attention with the normalised stream as queries. A whole segment and a single
                decoded step have different keys; the rest of the block is the same. It may return
                fewer tokens than `x` has: the last ones, or those of `select`.
            select: Selects the tokens of `x` that `attend` returns, where these are not the last.

        Returns:
            `(B, q, d_model)` for the q tokens that `attend` returns.
        """
        update = attend(self.attention_norm(x))
        if select is not None:
            x = select(x)
        update = self.dropout(update)
        x = self.attention_residual(x[:, -update.shape[1] :], update)
        if self.feed_forward is not None:
            x = self.feed_forward_residual(x, self.feed_forward(x))
        return x
