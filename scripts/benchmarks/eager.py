"""The public model in eager PyTorch: the baseline of the training step.

Everything is float32, attention is computed by einsum with all scores in memory, and frames are
encoded segment by segment. Constructor, forward and parameter names are the public model's, so that
`--reference-module scripts/benchmarks/eager.py` works too. The public model's debugging code, which
copies attention scores to the host, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.reference.config import ReferenceConfig
from rate.reference.environments import Convention, Form, convention_for

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "no_act": torch.clone,
}


class RelativeAttention(nn.Module):
    """Transformer-XL's attention (Dai et al. 2019, section 3.3), with a residual connection."""

    def __init__(self, config: ReferenceConfig, dropout: float, dropatt: float) -> None:
        super().__init__()
        inner = config.n_head * config.d_head
        self.n_head, self.d_head = config.n_head, config.d_head
        self.qkv_net = nn.Linear(config.d_model, 3 * inner, bias=False)
        self.r_net = nn.Linear(config.d_model, inner, bias=False)
        self.o_net = nn.Linear(inner, config.d_model, bias=False)
        self.drop, self.drop_attention = nn.Dropout(dropout), nn.Dropout(dropatt)

    def forward(
        self, x: Tensor, r: Tensor, u: Tensor, v: Tensor, blocked: Tensor, cache: Tensor | None
    ) -> Tensor:
        """`(L, B, d)` tokens, `(keys, d)` positions, `(L, keys)` mask, `(c, B, d)` cache."""
        source = x if cache is None else torch.cat((cache, x))
        rows, keys = len(x), len(source)
        heads = self.qkv_net(source).view(keys, x.shape[1], 3, self.n_head, self.d_head)
        query, key, value = heads.unbind(2)
        query = query[-rows:]
        distance = self.r_net(r).view(keys, self.n_head, self.d_head)
        content = torch.einsum("ibnd,jbnd->ijbn", query + u, key)
        position = torch.einsum("ibnd,jnd->ijbn", query + v, distance)
        shifted = F.pad(position, (0, 0, 0, 0, 1, 0)).reshape(keys + 1, rows, *position.shape[2:])
        scores = (content + shifted[1:].view_as(position)) / math.sqrt(self.d_head)
        if blocked.any().item():  # synchronises with the device, in every layer, as published
            scores = scores.masked_fill(blocked[:, :, None, None], -math.inf)
        shares = self.drop_attention(scores.softmax(dim=1))
        mixed = torch.einsum("ijbn,jbnd->ibnd", shares, value).flatten(2)
        out: Tensor = x + self.drop(self.o_net(mixed))
        return out


class FeedForward(nn.Module):
    """Two linear layers, under the public names."""

    def __init__(self, config: ReferenceConfig, dropout: float) -> None:
        super().__init__()
        inner = config.d_inner or config.d_model
        self.CoreNet = nn.Sequential(
            nn.Linear(config.d_model, inner), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(inner, config.d_model), nn.Dropout(dropout),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.CoreNet(x)
        return out


class Block(nn.Module):
    """The post-norm block; its residual is added twice, here and in the attention, as published."""

    def __init__(self, config: ReferenceConfig, dropout: float, dropatt: float) -> None:
        super().__init__()
        self.dec_attn = RelativeAttention(config, dropout, dropatt)
        self.layer_norm1 = nn.LayerNorm(config.d_model)
        if not config.skip_dec_ffn:
            self.pos_ff = FeedForward(config, dropout)
            self.layer_norm2 = nn.LayerNorm(config.d_model)
        self.skip_ffn = config.skip_dec_ffn

    def forward(self, x: Tensor, *geometry: Any) -> Tensor:
        x = self.layer_norm1(x + self.dec_attn(x, *geometry))
        return x if self.skip_ffn else self.layer_norm2(x + self.pos_ff(x))


class MemoryRetentionValve(nn.Module):
    """The memory retention valve: cross-attention of the old memory to the new one."""

    def __init__(self, d_model: int, heads: int, dropatt: float) -> None:
        super().__init__()
        self.heads, self.dropatt = heads, dropatt
        self.wq, self.wk, self.wv, self.dense = (nn.Linear(d_model, d_model) for _ in range(4))

    def forward(self, memory: Tensor, written: Tensor) -> Tensor:
        """`(B, m, d)` each."""

        def split(x: Tensor) -> Tensor:
            return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

        query, key, value = split(self.wq(memory)), split(self.wk(written)), split(self.wv(written))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        shares = F.dropout(scores.softmax(-1), self.dropatt, self.training)
        out: Tensor = self.dense((shares @ value).transpose(1, 2).flatten(2))
        return out


class RATE(nn.Module):
    """The model with the public arguments and outputs.

    Args:
        dropout: Of tokens, positions, attention output and feed-forward.
        dropatt: Of attention probabilities.
        arguments: See `ReferenceConfig`.
    """

    def __init__(self, dropout: float = 0.0, dropatt: float = 0.0, **arguments: Any) -> None:
        super().__init__()
        self.config = config = ReferenceConfig.parse(arguments)
        convention, d = convention_for(config.env_name), config.d_model
        self.state_encoder = _observation_encoder(config, convention)
        self.ret_emb = _in_form(nn.Linear(1, d), convention.returns)
        self.continuous = convention.actions == "continuous"
        self.head: nn.Module = nn.Linear(d, config.act_dim, bias=False)
        if self.continuous:
            self.head = _in_form(nn.Linear(d, config.act_dim), convention.head)
            self.action_embeddings = _in_form(nn.Linear(config.act_dim, d), convention.vector)
        else:
            rows = config.act_dim + (convention.padding_row is not False)
            self.action_embeddings = _in_form(nn.Embedding(rows, d), convention.index)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Block(config, dropout, dropatt) for _ in range(config.n_layer))
        self.r_w_bias, self.r_r_bias = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(config.n_head, config.d_head)))
            for _ in range(2)
        )
        self.pos_emb = nn.Module()
        self.pos_emb.register_buffer("inv_freq", 10_000 ** -(torch.arange(0.0, d, 2.0) / d))
        self.mem_tokens: nn.Parameter | None = None
        if config.num_mem_tokens:
            tokens = torch.randn(1, 1, d).repeat(config.num_mem_tokens, 1, 1)  # (m, 1, d)
            self.mem_tokens = nn.Parameter(tokens)
        if config.has_valve:
            self.mha_mem_to_mem = MemoryRetentionValve(d, config.n_head_ca, dropatt)

    def forward(
        self,
        states: Tensor,
        actions: Tensor,
        rtgs: Tensor,
        target: Tensor | None = None,
        timesteps: Tensor | None = None,
        *mems: Tensor,
        mem_tokens: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> dict[str, Any]:
        """One segment of `(B, K, ...)` steps.

        Returns:
            `logits` `(B, K, A)`, `new_mems` (per level `(c, B, d)`, or None) and `mem_tokens`
            `(m, B, d)` (or None) for the next segment.
        """
        steps = torch.stack(
            (
                self.ret_emb(rtgs),
                self.state_encoder(states.flatten(0, 1)).view(*states.shape[:2], -1),
                self.action_embeddings(actions if self.continuous else self._rows(actions)),
            ),
            dim=2,
        ).flatten(1, 2)  # (B, 3K, d)
        x = steps.transpose(0, 1)  # (L, B, d)
        before = 0
        if mem_tokens is not None:
            before = len(mem_tokens)
            x = torch.cat((mem_tokens, x, *([mem_tokens] if self.config.has_suffix else [])))
        levels = self._stack(self.drop(x), mems)
        last = self.drop(levels[-1])
        logits = self.head(last[before : before + steps.shape[1]][1::3].transpose(0, 1))
        memory = self._update_memory(mem_tokens, last)
        return {"logits": logits, "new_mems": self._cache(levels, mems), "mem_tokens": memory}

    def _rows(self, actions: Tensor) -> Tensor:
        """`(B, K)` rows of the embedding; padded steps have a row of their own, the last."""
        rows = actions.long().squeeze(-1)
        if self.config.padding_idx is None:
            return rows
        return rows.masked_fill(rows == self.config.padding_idx, self.config.act_dim)

    def _stack(self, x: Tensor, mems: tuple[Tensor, ...]) -> list[Tensor]:
        """The input of the first layer and the output of each: `(L, B, d)`."""
        cached = len(mems[0]) if mems else 0
        keys = cached + len(x)
        positions = torch.arange(keys - 1, -1, -1.0, device=x.device)
        angles = positions[:, None] * self.pos_emb.get_buffer("inv_freq")
        r = self.drop(torch.cat((angles.sin(), angles.cos()), dim=-1))
        blocked = self._attention_mask(len(x), cached, x.device)
        levels = [x]
        for index, layer in enumerate(self.layers):
            cache = mems[index] if mems else None
            levels.append(layer(levels[-1], r, self.r_w_bias, self.r_r_bias, blocked, cache))
        return levels

    def _attention_mask(self, rows: int, cached: int, device: torch.device) -> Tensor:
        """`(rows, cached + rows)` bool, True = masked.

        Causal; memory tokens attend to each other, and not to the cache.
        """
        blocked = torch.ones(rows, cached + rows, device=device).triu(1 + cached).bool()
        memory = self.config.num_mem_tokens
        if memory:
            blocked[:memory, cached : cached + memory] = False
            blocked[:memory, :cached] = True
            if self.config.has_suffix:
                blocked[-memory:, -memory:] = False
                blocked[-memory:, :cached] = True
        return blocked

    def _update_memory(self, memory: Tensor | None, last: Tensor) -> Tensor | None:
        if memory is None:
            return None
        written = last[-len(memory) :] if self.config.writes_last_rows else last[: len(memory)]
        if not self.config.has_valve:
            return written
        written = _ACTIVATIONS[self.config.mrv_act or "no_act"](written)
        out: Tensor = self.mha_mem_to_mem(memory.transpose(0, 1), written.transpose(0, 1))
        return out.transpose(0, 1)

    def _cache(self, levels: list[Tensor], mems: tuple[Tensor, ...]) -> list[Tensor] | None:
        if not self.config.mem_len:
            return None
        if mems:
            levels = [torch.cat(pair) for pair in zip(mems, levels, strict=True)]
        return [level[-self.config.mem_len :].detach() for level in levels]


def _in_form(layer: nn.Module, form: Form) -> nn.Module:
    """The layer, followed by Tanh where the form has it or leaves it open."""
    return nn.Sequential(layer, nn.Tanh()) if form in ("tanh", "stored") else layer


def _observation_encoder(config: ReferenceConfig, convention: Convention) -> nn.Module:
    d, padding = config.d_model, convention.padding
    if convention.observation != "image":
        return nn.Linear(config.state_dim or 1, d)
    channels, *size = convention.image_shape
    for kernel, stride in ((8, 4), (4, 2), (3, 1)):
        size = [(side + 2 * padding - kernel) // stride + 1 for side in size]
    return nn.Sequential(
        nn.Conv2d(channels, 32, 8, 4, padding), nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2, padding), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, padding), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * size[0] * size[1], d),
        *([nn.Tanh()] if convention.image_tanh else []),
    )  # fmt: skip
