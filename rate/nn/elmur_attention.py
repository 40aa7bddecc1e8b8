"""The two attentions of ELMUR (arXiv 2510.07151): within a segment, and to and from memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rate.nn.attention import fused_attention
from rate.nn.attention_mask import masked_bias
from rate.nn.positions import sinusoidal_embedding


class SelfAttention(nn.Module):
    """Causal attention within a segment with Transformer-XL's scores (Dai et al. 2019, 3.3)."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.position = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, mask: Tensor, offset: Tensor, biases: tuple[Tensor, Tensor]
    ) -> Tensor:
        """`(B, T, d)` to `(B, T, d)`.

        Args:
            x: Tokens.
            mask: `(B, 1, T, T)` bool attention mask.
            offset: `(B,)`, added to distances before they are embedded.
            biases: u and v, `(H, d_head)` each, shared by all layers.
        """
        distance = torch.arange(x.shape[1], device=x.device)
        table = self.distance_table(offset, x.shape[1])
        back = (distance[:, None] - distance).clamp(min=0)  # (T, T): from a query to a key
        return self.attend(self.heads(x), table, back, mask, biases)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `(B, T, H, d_head)` of tokens `(B, T, d)`."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        return query, key, value

    def distance_table(self, offset: Tensor, count: int) -> Tensor:
        """`W r` of distances 0 to `count - 1` plus an offset `(B,)`: `(B, count, H, d_head)`."""
        weight = self.position.weight
        distance = torch.arange(count, device=weight.device)
        table = sinusoidal_embedding((offset[:, None] + distance).flatten(), weight.shape[1])
        heads: Tensor = self.position(table.to(weight.dtype))
        return heads.view(offset.shape[0], count, self.num_heads, -1)

    def attend(
        self,
        heads: tuple[Tensor, Tensor, Tensor],
        table: Tensor,
        back: Tensor,
        mask: Tensor,
        biases: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Attention of n queries to k keys, then the output projection: `(B, n, d)`.

        Args:
            heads: Queries `(B, n, H, d_head)`, keys and values `(B, k, H, d_head)`.
            table: See `distance_table`.
            back: `(n, k)` or `(B, 1, n, k)` int64, the row of the table for each query and key.
            mask: `(B, 1, n, k)` bool.
            biases: See `forward`.
        """
        (query, key, value), (u, v) = heads, biases
        content = torch.einsum("bihd,bjhd->bhij", query + u, key)
        by_distance = torch.einsum("bihd,bjhd->bhij", query + v, table)
        scores = content + by_distance.gather(3, back.expand_as(content))
        scores = scores / math.sqrt(query.shape[-1]) + masked_bias(query.new_zeros(()), mask)
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)
        out: Tensor = self.out(mixed.flatten(2))
        return out


class CrossAttention(nn.Module):
    """Cross-attention under a bias for each query, key and head."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, queries: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """`(B, n, d)` queries over `(B, k, d)` context under `(B, H, n, k)`: `(B, n, d)`."""
        query, key, value = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, x in (
                (self.query, queries),
                (self.key, context),
                (self.value, context),
            )
        )
        mixed = fused_attention(query, key, value, bias)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out
