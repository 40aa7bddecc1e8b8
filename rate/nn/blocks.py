"""Transformer blocks: where the norm stands and how a sub-layer joins the residual stream."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.config import BlockKind, ModelConfig
from rate.nn.attention import Attention
from rate.nn.dropout import Dropout
from rate.nn.linear import Linear


class GRUGate(nn.Module):
    """GRU-type gating of a residual stream (Parisotto et al. 2020, section 3.2).

    Args:
        d_model: Width.
        bias: `b_g`; above zero the gate starts close to the identity of the stream.
    """

    def __init__(self, d_model: int, bias: float = 2.0) -> None:
        super().__init__()
        self.from_update = Linear(d_model, 3 * d_model, bias=False)
        self.from_stream = Linear(d_model, 2 * d_model, bias=False)
        self.from_reset = Linear(d_model, d_model, bias=False)
        self.bias = nn.Parameter(torch.full((d_model,), bias))

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        reset_y, gate_y, candidate_y = self.from_update(update).chunk(3, dim=-1)
        reset_x, gate_x = self.from_stream(stream).chunk(2, dim=-1)
        reset = torch.sigmoid(reset_y + reset_x)
        gate = torch.sigmoid(gate_y + gate_x - self.bias)
        candidate = torch.tanh(candidate_y + self.from_reset(reset * stream))
        return (1 - gate) * stream + gate * candidate


class Join(nn.Module):
    """How the output of a sub-layer joins the residual stream of a block.

    `pre_norm`, `gpt`: x + y. `trxl`: LN(x + y). `trxl_i`: x + ReLU(y). `gtrxl`: gate(x, ReLU(y)).
    """

    def __init__(self, kind: BlockKind, d_model: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "trxl":
            self.norm = nn.LayerNorm(d_model)
        if kind == "gtrxl":
            self.gate = GRUGate(d_model)

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        joined: Tensor
        if self.kind == "trxl":
            joined = self.norm(stream + update)
        elif self.kind == "trxl_i":
            joined = stream + torch.relu(update)
        elif self.kind == "gtrxl":
            joined = self.gate(stream, torch.relu(update))
        else:
            joined = stream + update
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


def _hidden(config: ModelConfig) -> list[nn.Module]:
    """The first half of a feed-forward layer."""
    if config.feed_forward == "swiglu":
        return [GatedUnit(config.d_model, config.ff_width)]
    activation = nn.GELU() if config.block == "pre_norm" else nn.ReLU()
    return [Linear(config.d_model, config.ff_width), activation]


class Block(nn.Module):
    """Attention and a feed-forward layer, in one of the arrangements of `BlockKind`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model, kind = config.d_model, config.block
        norm_first = kind != "trxl"
        self.attention_norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.attention = Attention(
            d_model,
            config.num_heads,
            config.head_width,
            dropout=config.attention_dropout,
            relative=config.position == "relative",
            bias=kind == "gpt",
        )
        self.attention_join = Join(kind, d_model)
        self.dropout = Dropout(config.dropout)
        self.feed_forward: nn.Sequential | None = None
        if not config.skip_ffn:
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(d_model) if norm_first else nn.Identity(),
                *_hidden(config),
                Dropout(config.dropout),
                Linear(config.ff_width, d_model),
                Dropout(config.dropout),
            )
            self.feed_forward_join = Join(kind, d_model)

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
