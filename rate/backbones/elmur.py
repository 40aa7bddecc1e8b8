"""ELMUR (arXiv 2510.07151): layer-local memory slots, of which each segment rewrites one.

Per layer, with the tokens h of a segment, memory m of M slots and the time p of each slot's last
write (-1: never):

    h = h + SelfAttention(h)                       # of this segment alone, as Transformer-XL
    h = h + MHA(h; m, m) with a bias by tok - p    # read
    h = h + SwiGLU(h)
    u = m + MHA(m; h, h) with a bias by p - tok    # write
    u = u + SwiGLU(u)
    j = argmin p                                   # the least recently used slot
    m_j = a u_j + (1 - a) m_j,  p_j = the time of the segment's first token

with a LayerNorm before or after each sum. Two things are as in the public code and not as the paper
says: within a segment, tokens are numbered from the newest on (the first has the largest time), and
the sinusoids of self-attention are those of offset + distance, where the offset is the number of
tokens before the segment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.base import Backbone
from rate.backbones.settings import ELMURConfig
from rate.decoders.elmur import ELMURDecoder
from rate.kernels.cpu_dropout import Dropout
from rate.nn.attention_mask import masked_bias
from rate.nn.elmur_attention import CrossAttention, SelfAttention
from rate.state import State
from rate.tokenizers import StepTokens

_EPSILON = 1e-8  # of the public code's LayerNorm


@dataclass(frozen=True)
class ELMURState(State):
    """The state between two segments.

    Attributes:
        memory: The memory slots of every layer, `(B, M, d)`.
        position: When the slots of every layer were last written, `(B, M)` int64; -1 is never.
        offset: `(B,)` int64, tokens before the segment to come.
    """

    memory: tuple[Tensor, ...]
    position: tuple[Tensor, ...]
    offset: Tensor


class FeedForward(nn.Module):
    """SwiGLU: `down(silu(gate x) * up x)` (Shazeer 2020)."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, width, bias=False)
        self.up = nn.Linear(d_model, width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Layer(nn.Module):
    """A layer of ELMUR: its token track and its memory track."""

    def __init__(self, config: ELMURConfig) -> None:
        super().__init__()
        d_model, heads = config.d_model, config.num_heads
        width = 4 * d_model if config.d_ff is None else config.d_ff
        self.config, self.reach = config, config.max_distance - 1
        self.attention = SelfAttention(d_model, heads)
        self.read, self.write = CrossAttention(d_model, heads), CrossAttention(d_model, heads)
        self.token_feed_forward = FeedForward(d_model, width)
        self.memory_feed_forward = FeedForward(d_model, width)
        self.distance = nn.Embedding(2 * self.reach + 1, heads)
        parts = ("attention", "read", "token_feed_forward", "write", "memory_feed_forward")
        self.norms = nn.ModuleDict({part: nn.LayerNorm(d_model, _EPSILON) for part in parts})
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        h: Tensor,
        memory: Tensor,
        position: Tensor,
        place: Tensor,
        mask: Tensor,
        offset: Tensor,
        biases: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, memory and its times after the layer.

        Args:
            h: `(B, T, d)` tokens.
            memory: `(B, M, d)` slots.
            position: `(B, M)` when they were written.
            place: `(B, T)` the times of the tokens.
            mask: `(B, 1, T, T)` bool attention mask. Its last row is that of a write.
            offset: See `SelfAttention`.
            biases: See `SelfAttention`.
        """
        h = self.run_tokens(
            h, lambda x: self.attention(x, mask, offset, biases), memory, position, place
        )
        real = masked_bias(h.new_zeros(()), mask[:, :, -1:])  # (B, 1, 1, T)
        return h, *self.run_memory(h, memory, position, place, real)

    def run_tokens(
        self,
        h: Tensor,
        attend: Callable[[Tensor], Tensor],
        memory: Tensor,
        position: Tensor,
        place: Tensor,
    ) -> Tensor:
        """The token track, of tokens `(B, n, d)` with the times `place` `(B, n)`."""
        apart = place[:, :, None] - position[:, None]  # (B, n, M)
        h = self._add("attention", h, attend)
        h = self._add("read", h, lambda x: self.read(x, memory, self._bias(apart)))
        return self._add("token_feed_forward", h, self.token_feed_forward)

    def run_memory(
        self, h: Tensor, memory: Tensor, position: Tensor, place: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The memory track, of the tokens `(B, T, d)` of a whole segment: memory and its times.

        Args:
            h: What the token track returned.
            memory: `(B, M, d)` slots.
            position: `(B, M)` when they were written.
            place: `(B, T)` the times of the tokens.
            real: Additive mask of padding, expands to `(B, H, M, T)`.
        """
        bias = self._bias(position[:, :, None] - place[:, None]) + real  # (B, H, M, T)
        u = self._add("write", memory, lambda x: self.write(x, h, bias))
        u = self._add("memory_feed_forward", u, self.memory_feed_forward)
        if not self.config.use_lru:
            return u, position
        slot = F.one_hot(position.argmin(1), memory.shape[1]).bool()  # (B, M)
        blended = self.config.lru_blend * u + (1 - self.config.lru_blend) * memory
        memory = torch.where(slot[:, :, None], blended, memory)
        return memory, torch.where(slot, place[:, :1], position)

    def _add(self, part: str, stream: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        norm = self.norms[part]
        update = self.dropout(function(norm(stream) if self.config.pre_norm else stream))
        summed: Tensor = stream + update
        return summed if self.config.pre_norm else cast("Tensor", norm(summed))

    def _bias(self, apart: Tensor) -> Tensor:
        """`(B, n, k)` differences of times to biases `(B, H, n, k)`."""
        found: Tensor = self.distance(apart.clamp(-self.reach, self.reach) + self.reach)
        return found.permute(0, 3, 1, 2)


class ELMUR(Backbone[ELMURState]):
    """Layers with memory slots of their own, rewritten by least recent use.

    Attributes:
        initial: `(L, M, d)`, the Gaussian noise that memory starts from when acting.
    """

    Config = ELMURConfig
    config: ELMURConfig
    initial: Tensor
    # Times count from a segment's last token on, so that all segments need the same length.
    whole_segments = True

    def __init__(self, config: ELMURConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        heads = (config.num_heads, config.d_model // config.num_heads)
        self.content_bias = nn.Parameter(torch.zeros(heads))  # u
        self.position_bias = nn.Parameter(torch.zeros(heads))  # v
        shape = (config.num_layers, config.memory_slots, config.d_model)
        self.register_buffer("initial", config.memory_init * torch.randn(shape))

    def initial_state(self, batch_size: int) -> ELMURState:
        """Gaussian memory, in training different in every row, in slots that were never written."""
        memory = self.initial[:, None].expand(-1, batch_size, -1, -1)  # (L, B, M, d)
        memory = memory.contiguous().clone()
        if self.training:
            memory = self.config.memory_init * torch.randn_like(memory)
        position = torch.full(memory.shape[:3], -1, dtype=torch.int64, device=memory.device)
        offset = torch.zeros(batch_size, dtype=torch.int64, device=memory.device)
        return ELMURState(tuple(memory.unbind()), tuple(position.unbind()), offset)

    def forward(self, tokens: Tensor, mask: Tensor, state: ELMURState) -> tuple[Tensor, ELMURState]:
        """See `Backbone`."""
        h, per_step = tokens.flatten(1, 2), self.tokens.count  # (B, T, d), T = nK
        count = h.shape[1]
        real = mask.repeat_interleave(per_step, dim=1)  # (B, T)
        causal = torch.ones(count, count, dtype=torch.bool, device=h.device).tril()
        attention_mask = causal & real[:, None, None]  # (B, 1, T, T)
        newest_first = torch.arange(count - 1, -1, -1, device=h.device)
        place = state.offset[:, None] + newest_first  # (B, T)
        biases = (self.content_bias, self.position_bias)
        memories, positions = [], []
        for layer, memory, position in zip(self.layers, state.memory, state.position, strict=True):
            h, memory, position = layer(
                h, memory, position, place, attention_mask, state.offset, biases
            )
            memories.append(memory)
            positions.append(position)
        new = ELMURState(tuple(memories), tuple(positions), state.offset + count)
        features = h[:, self.tokens.read :: per_step]  # (B, K, d)
        return features, new.where(~mask.any(1), state)

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> ELMURDecoder:
        """A decoder with a KV cache of the open segment."""
        return ELMURDecoder(self, batch_size)
