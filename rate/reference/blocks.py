"""The blocks of the public model: its attention mask, and relative attention with its quirks.

Tensors are batch first: `(B, L, d)` hidden states, L positions.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rate.kernels.cpu_dropout import Dropout
from rate.nn.attention import Attention
from rate.nn.gates import GRUGate
from rate.reference.config import ReferenceConfig


def blocked_keys(
    config: ReferenceConfig, rows: int, cached: int, device: torch.device | None = None
) -> Tensor:
    """The inverted attention mask `(rows, cached + rows)`, True where a query ignores a key.

    It is causal but for the memory tokens: the first and the last `num_mem_tokens` rows each attend
    to all of their own block, later rows included, and not to the cache, to which step tokens do
    attend. Padded steps are not masked.

    With `same_length` all rows attend to equally many of the latest keys.
    """
    keys = cached + rows
    ones = torch.ones(rows, keys, dtype=torch.bool, device=device)
    blocked = ones.triu(1 + cached)
    if config.same_length:
        beyond = keys - config.mem_len
        reach = rows - beyond if beyond > 0 else rows
        return blocked | ones.tril(-reach)
    memory = config.num_mem_tokens
    if memory:
        blocked[:memory, cached : cached + memory] = False
        blocked[:memory, :cached] = not config.read_mem_from_cache
    if config.has_suffix:
        blocked[-memory:, -memory:] = False
        blocked[-memory:, :cached] = not config.read_mem_from_cache
    return blocked


def position_embeddings(config: ReferenceConfig, frequencies: Tensor, keys: int) -> Tensor:
    """Sines, then cosines, of the distances keys-1 ... 0 in this order: `(keys, d)`.

    Cached and memory positions count as steps of distance like any other.
    """
    distances = torch.arange(keys - 1, -1, -1, device=frequencies.device, dtype=frequencies.dtype)
    if config.clamp_len > 0:
        distances = distances.clamp(max=config.clamp_len)
    angles = distances[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def relative_shift(scores: Tensor) -> Tensor:
    """Shifts row i of `(..., rows, keys)` so that column j holds the score of their distance.

    The relative shift of Transformer-XL (Dai et al. 2019, appendix B): pad a column of zeros on the
    left, then reshape from the second row on. Entries to the right of the diagonal are undefined:
    key i + 1 gets 0, and keys further right the scores of *the next row's query* with the farthest
    distances. A causal mask removes them. Memory tokens attend to each other in both directions, so
    that these entries are part of the public model's outputs and are reproduced here.
    """
    rows = scores.shape[-2]
    flat = functional.pad(scores, (1, 0)).flatten(-2)  # (..., rows * (keys + 1))
    return flat[..., rows:].reshape(scores.shape)


class PublicBlock(nn.Module):
    """One block: the post-norm one, TrXL-I, or GTrXL (Parisotto et al. 2020).

    Projections, gates and norms are those of our own blocks. Three things differ: attention adds
    its input once more before the block does, cached states are not normalised, and memory tokens
    attend to keys whose position scores the relative shift leaves undefined.

    Args:
        config: The public constructor's arguments.
        dropout: Dropout of the outputs of attention and of the feed-forward part, in training.
    """

    def __init__(self, config: ReferenceConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config, self.dropout = config, Dropout(dropout)
        width = config.d_model
        self.attention = Attention(width, config.n_head, config.d_head)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward: nn.Sequential | None = None
        if not config.skip_dec_ffn:
            inner = config.d_inner or 0
            self.feed_forward = nn.Sequential(
                nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width)
            )
            self.feed_forward_norm = nn.LayerNorm(width)
        if config.use_gate:
            self.attention_gate, self.feed_forward_gate = GRUGate(width), GRUGate(width)

    def forward(
        self,
        hidden: Tensor,
        cache: Tensor | None,
        frequencies: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """`(B, L, d)` and cached `(B, c, d)` to `(B, L, d)`.

        `padding`, `(B, c + L)` bool, is True at keys to ignore; the public code ignores none.
        """
        if self.config.use_stable_version:
            return self._normalise_first(hidden, cache, frequencies, padding)
        return self._normalise_last(hidden, cache, frequencies, padding)

    def _normalise_last(
        self, hidden: Tensor, cache: Tensor | None, frequencies: Tensor, padding: Tensor | None
    ) -> Tensor:
        """The post-norm block. Its residual is doubled: attention adds its input, the block too."""
        attended = self.attend(hidden, cache, frequencies, padding)
        hidden = self.attention_norm(hidden + (hidden + attended))
        if self.feed_forward is None:
            return hidden
        update = self.dropout(self.feed_forward(hidden))
        normed: Tensor = self.feed_forward_norm(hidden + update)
        return normed

    def _normalise_first(
        self, hidden: Tensor, cache: Tensor | None, frequencies: Tensor, padding: Tensor | None
    ) -> Tensor:
        """The TrXL-I block, or GTrXL with gates in place of its two sums.

        Attention's own residual hides one more copy of the *normalised* input under the ReLU.
        """
        normed = self.attention_norm(hidden)
        update = (normed + self.attend(normed, cache, frequencies, padding)).relu()
        gated = self.config.use_gate
        hidden = self.attention_gate(hidden, update) if gated else hidden + update
        if self.feed_forward is None:
            return hidden
        update = self.dropout(self.feed_forward(self.feed_forward_norm(hidden))).relu()
        out: Tensor = self.feed_forward_gate(hidden, update) if gated else hidden + update
        return out

    def attend(
        self,
        hidden: Tensor,
        cache: Tensor | None,
        frequencies: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Relative attention, without any residual: `(B, L, d)`.

        Args:
            hidden: `(B, L, d)`, normalised already where the block normalises first.
            cache: `(B, c, d)` hidden states of earlier segments. They are stored before the block's
                norm and are not normalised here, so that cached and current keys have different
                scales in the TrXL-I and GTrXL blocks.
            frequencies: `(d / 2,)` of the sinusoids.
            padding: See `forward`.
        """
        attention, rows = self.attention, hidden.shape[1]
        source = hidden if cache is None else torch.cat([cache, hidden], dim=1)
        keys = source.shape[1]
        query, key, value = attention.project(source)  # (B, H, c + L, d_head)
        query = query[:, :, -rows:]
        positions = position_embeddings(self.config, frequencies, keys)
        distance = attention.position(positions).unflatten(-1, (attention.num_heads, -1))
        # Dai et al., 2019, section 3.3, equation (5): content and position, each with its own bias.
        content = (query + attention.content_bias) @ key.transpose(-1, -2)
        position = (query + attention.position_bias) @ distance.permute(1, 2, 0)
        scores = (content + relative_shift(position)) * self.config.d_head**-0.5  # (B, H, L, c + L)
        blocked = blocked_keys(self.config, rows, keys - rows, scores.device)
        if padding is not None:
            blocked = blocked | padding[:, None, None]  # (B, 1, L, c + L)
        weights = scores.masked_fill(blocked, -torch.inf).softmax(dim=-1)
        mixed: Tensor = attention.out((weights @ value).transpose(1, 2).flatten(2))
        return cast("Tensor", self.dropout(mixed))
