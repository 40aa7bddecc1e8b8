"""The public model's stack: its mask, its relative attention, its three blocks, its valve.

Tensors are batch first: `(B, L, d)` hidden states, L positions. `weights` are checked before.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from rate.reference.config import ReferenceConfig

Weights = Mapping[str, Tensor]


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


def position_embeddings(config: ReferenceConfig, weights: Weights, keys: int) -> Tensor:
    """Sines, then cosines, of the distances keys-1 ... 0 in this order: `(keys, d)`.

    Cached and memory positions count as steps of distance like any other.
    """
    frequencies = weights["pos_emb.inv_freq"]
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


def attend(
    config: ReferenceConfig, weights: Weights, block: str, hidden: Tensor, cache: Tensor | None
) -> Tensor:
    """Relative attention of one block, without any residual.

    Args:
        config: The model's arguments.
        weights: The model's weights.
        block: Name of the block in them.
        hidden: `(B, L, d)`, normalised already where the block normalises first.
        cache: `(B, c, d)` hidden states of earlier segments. They are stored before the block's
            norm and are not normalised here, so in the TrXL-I and GTrXL blocks cached and
            current keys stand on different scales.

    Returns:
        `(B, L, d)`.
    """
    rows = hidden.shape[1]
    source = hidden if cache is None else torch.cat([cache, hidden], dim=1)
    keys = source.shape[1]
    heads = (config.n_head, config.d_head)
    name = f"{block}.dec_attn"
    projected = functional.linear(source, weights[f"{name}.qkv_net.weight"])
    query, key, value = (_split(part, heads) for part in projected.chunk(3, dim=-1))
    query = query[:, -rows:]  # (B, L, H, d_head); key and value: (B, c + L, H, d_head)
    positions = position_embeddings(config, weights, keys)
    distance = _split(functional.linear(positions, weights[f"{name}.r_net.weight"]), heads)

    # Dai et al., 2019, section 3.3, equation (5): content and position, each with its own bias.
    content = torch.einsum("bihd,bjhd->bhij", query + weights["r_w_bias"], key)
    position = torch.einsum("bihd,jhd->bhij", query + weights["r_r_bias"], distance)
    scores = (content + relative_shift(position)) * config.d_head**-0.5  # (B, H, L, c + L)
    blocked = blocked_keys(config, rows, keys - rows, scores.device)
    shares = scores.masked_fill(blocked, -torch.inf).softmax(dim=-1)
    mixed = torch.einsum("bhij,bjhd->bihd", shares, value).flatten(-2)
    return functional.linear(mixed, weights[f"{name}.o_net.weight"])


def _split(hidden: Tensor, heads: tuple[int, int]) -> Tensor:
    """`(..., H * d_head)` to `(..., H, d_head)`."""
    return hidden.reshape(*hidden.shape[:-1], *heads)


def apply_block(
    config: ReferenceConfig, weights: Weights, block: str, hidden: Tensor, cache: Tensor | None
) -> Tensor:
    """One block, `(B, L, d)` to `(B, L, d)`: the post-norm one, TrXL-I, or GTrXL."""
    if config.use_stable_version:
        return _normalise_first(config, weights, block, hidden, cache)
    return _normalise_last(config, weights, block, hidden, cache)


def _normalise_last(
    config: ReferenceConfig, weights: Weights, block: str, hidden: Tensor, cache: Tensor | None
) -> Tensor:
    """The post-norm block. Its residual is doubled: the attention adds its input, the block too."""
    attended = attend(config, weights, block, hidden, cache)
    hidden = _norm(weights, f"{block}.layer_norm1", hidden + (hidden + attended))
    if config.skip_dec_ffn:
        return hidden
    fed = _feed_forward(weights, block, hidden)
    return _norm(weights, f"{block}.layer_norm2", hidden + fed)


def _normalise_first(
    config: ReferenceConfig, weights: Weights, block: str, hidden: Tensor, cache: Tensor | None
) -> Tensor:
    """The TrXL-I block, or GTrXL with gates in place of its two sums (Parisotto et al., 2020).

    Here the attention's own residual hides one more copy of the *normalised* input under the ReLU.
    """
    normed = _norm(weights, f"{block}.layer_norm1", hidden)
    attended = normed + attend(config, weights, block, normed, cache)
    hidden = _merge(config, weights, f"{block}.gate_mha", hidden, attended.relu())
    normed = _norm(weights, f"{block}.layer_norm2", hidden)
    fed = _feed_forward(weights, block, normed)
    return _merge(config, weights, f"{block}.gate_mlp", hidden, fed.relu())


def _merge(
    config: ReferenceConfig, weights: Weights, gate: str, stream: Tensor, update: Tensor
) -> Tensor:
    """The sum of stream and update, or their GRU gate (Parisotto et al., 2020, section 3.2)."""
    if not config.use_gate:
        return stream + update

    def mix(letter: str, kept: Tensor) -> Tensor:
        new = functional.linear(update, weights[f"{gate}.W{letter}.weight"])
        return new + functional.linear(kept, weights[f"{gate}.U{letter}.weight"])

    reset = mix("r", stream).sigmoid()
    share = (mix("z", stream) - weights[f"{gate}.bg"]).sigmoid()
    candidate = mix("g", reset * stream).tanh()
    return (1 - share) * stream + share * candidate


def _feed_forward(weights: Weights, block: str, hidden: Tensor) -> Tensor:
    name = f"{block}.pos_ff.CoreNet"
    inner = functional.linear(hidden, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"]).relu()
    return functional.linear(inner, weights[f"{name}.3.weight"], weights[f"{name}.3.bias"])


def _norm(weights: Weights, name: str, hidden: Tensor) -> Tensor:
    width = hidden.shape[-1:]
    return functional.layer_norm(hidden, width, weights[f"{name}.weight"], weights[f"{name}.bias"])


def retain(config: ReferenceConfig, weights: Weights, memory: Tensor, written: Tensor) -> Tensor:
    """The memory retention valve: what the entering memory takes over from the written one.

    The entering memory asks, the activated written memory answers. No mask, no position, no
    residual, no norm. In the public code its attention dropout stays on in evaluation; here, as
    in every parity run, dropout is off.

    Args:
        config: The model's arguments.
        weights: The model's weights.
        memory: `(B, m, d)` that entered the segment.
        written: `(B, m, d)` hidden states of the memory rows at the segment's end.

    Returns:
        `(B, m, d)`, the memory of the next segment.
    """
    name = "mha_mem_to_mem"
    activated = _activate(config.mrv_act, written)

    def project(layer: str, values: Tensor) -> Tensor:
        weight, bias = weights[f"{name}.{layer}.weight"], weights[f"{name}.{layer}.bias"]
        return functional.linear(values, weight, bias)

    heads = (config.n_head_ca, config.d_model // config.n_head_ca)
    query = _split(project("wq", memory), heads)
    key = _split(project("wk", activated), heads)
    value = _split(project("wv", activated), heads)
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / heads[1] ** 0.5
    mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(dim=-1), value).flatten(-2)
    return project("dense", mixed)


def _activate(name: str | None, values: Tensor) -> Tensor:
    if name == "relu":
        return values.relu()
    if name == "leaky_relu":
        return functional.leaky_relu(values)
    return values.tanh() if name == "tanh" else values
