"""The public model's blocks: its mask, and its relative attention around our projections.

Tensors are batch first: `(B, L, d)` hidden states, L positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rate.nn.attention import Attention
from rate.nn.gates import GRUGate
from rate.reference.config import ReferenceConfig


def blocked_keys(
    config: ReferenceConfig, rows: int, cached: int, device: torch.device | None = None
) -> Tensor:
    """The mask `(rows, cached + rows)`, True where a row must not look.

    It starts causal. Then the quirks around memory rows: the first and the last `num_mem_tokens`
    rows each see their own block whole, also the rows of it that come later, and neither sees the
    cache, which ordinary tokens do see. Nothing masks padded steps.

    With `same_length` a row sees no more than the latest keys, as many as every other row.
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
    """Move row i of `(..., rows, keys)` so that column j holds the score of their distance.

    The trick of Transformer-XL (Dai et al., 2019, appendix B): a column of zeros in front, then
    the whole read again one row further. To the right of the diagonal it leaves garbage: key
    i + 1 gets 0, and keys further right the scores of *the next row's query* with the farthest
    distances. Under a causal mask nobody looks there. The memory blocks are bidirectional and do
    look, so the garbage is part of the public model's answers and is reproduced here.
    """
    rows = scores.shape[-2]
    flat = functional.pad(scores, (1, 0)).flatten(-2)  # (..., rows * (keys + 1))
    return flat[..., rows:].reshape(scores.shape)


class PublicBlock(nn.Module):
    """One block: the post-norm one, TrXL-I, or GTrXL (Parisotto et al. 2020).

    Projections, gates and norms are those of our own blocks. What is not: attention adds its input
    once more before the block does, cached states are not normalised, and memory rows look at keys
    whose position scores the relative shift leaves undefined.
    """

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
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

    def forward(self, hidden: Tensor, cache: Tensor | None, frequencies: Tensor) -> Tensor:
        """`(B, L, d)` and cached `(B, c, d)` to `(B, L, d)`."""
        if self.config.use_stable_version:
            return self._normalise_first(hidden, cache, frequencies)
        return self._normalise_last(hidden, cache, frequencies)

    def _normalise_last(self, hidden: Tensor, cache: Tensor | None, frequencies: Tensor) -> Tensor:
        """The post-norm block. Its residual is doubled: attention adds its input, the block too."""
        attended = self.attend(hidden, cache, frequencies)
        hidden = self.attention_norm(hidden + (hidden + attended))
        if self.feed_forward is None:
            return hidden
        normed: Tensor = self.feed_forward_norm(hidden + self.feed_forward(hidden))
        return normed

    def _normalise_first(self, hidden: Tensor, cache: Tensor | None, frequencies: Tensor) -> Tensor:
        """The TrXL-I block, or GTrXL with gates in place of its two sums.

        Attention's own residual hides one more copy of the *normalised* input under the ReLU.
        """
        normed = self.attention_norm(hidden)
        update = (normed + self.attend(normed, cache, frequencies)).relu()
        gated = self.config.use_gate
        hidden = self.attention_gate(hidden, update) if gated else hidden + update
        if self.feed_forward is None:
            return hidden
        update = self.feed_forward(self.feed_forward_norm(hidden)).relu()
        joined: Tensor = self.feed_forward_gate(hidden, update) if gated else hidden + update
        return joined

    def attend(self, hidden: Tensor, cache: Tensor | None, frequencies: Tensor) -> Tensor:
        """Relative attention, without any residual: `(B, L, d)`.

        Args:
            hidden: `(B, L, d)`, normalised already where the block normalises first.
            cache: `(B, c, d)` hidden states of earlier segments. They are stored before the block's
                norm and are not normalised here, so in the TrXL-I and GTrXL blocks cached and
                current keys stand on different scales.
            frequencies: `(d / 2,)` of the sinusoids.
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
        shares = scores.masked_fill(blocked, -torch.inf).softmax(dim=-1)
        mixed: Tensor = attention.out((shares @ value).transpose(1, 2).flatten(2))
        return mixed
