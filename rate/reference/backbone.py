"""The public model as a backbone: memory tokens around the steps, a valve, cached states."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rate.backbones.base import Backbone
from rate.config import ModelConfig
from rate.nn.retention_valves import CrossAttentionMRV
from rate.reference.blocks import PublicBlock
from rate.reference.config import ReferenceConfig
from rate.state import State
from rate.tokenizers import StepTokens

TRIPLES = StepTokens(count=3, read=1)
_ACTIVATIONS = {None: "none", "no_act": "none"}


@dataclass(frozen=True)
class PublicState(State):
    """The state between two segments.

    Attributes:
        memory: `(B, m, d)` after the valve, if there is one; None without memory tokens.
        cache: `(B, mem_len, d)` of every level, the newest last. Level 0 is the input of the first
            block, level n the output of the n-th. None without cache.
        cached: `(B,)` int64, how many of them there are.
    """

    memory: Tensor | None
    cache: tuple[Tensor, ...] | None
    cached: Tensor


class PublicTransformer(Backbone[PublicState]):
    """The public RATE, RMT, TrXL and DT between their encoders and their head.

    Args:
        config: The public constructor's arguments.
        context_length: Steps K of a segment. The features of a step depend on K, so that decoding
            runs over whole segments, as training did.
        tokens: The tokens of a step; the public code has triples alone.
        dropout: See `PublicBlock`.

    Attributes:
        memory: `(m, d)`, the stored initial memory. The public code initialises it with one random
            vector, repeated m times.
        frequencies: `(d / 2,)` of the sinusoids.
    """

    frequencies: Tensor
    whole_segments = True

    def __init__(
        self,
        config: ReferenceConfig,
        context_length: int,
        tokens: StepTokens = TRIPLES,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(ModelConfig(context_length=context_length, d_model=config.d_model), tokens)
        self.public, width = config, config.d_model
        self.blocks = nn.ModuleList(PublicBlock(config, dropout) for _ in range(config.n_layer))
        self.register_buffer("frequencies", torch.empty(width // 2))
        if config.num_mem_tokens:
            self.memory = nn.Parameter(torch.empty(config.num_mem_tokens, width))
        self.valve: CrossAttentionMRV | None = None
        if config.has_valve:
            activation = _ACTIVATIONS.get(config.mrv_act, config.mrv_act) or "none"
            self.valve = CrossAttentionMRV(width, config.n_head_ca, 0.0, activation)

    def with_context(self, context_length: int) -> PublicTransformer:
        """A copy for segments of so many steps."""
        other = deepcopy(self)
        other.config = replace(self.config, context_length=context_length)
        return other

    def initial_state(self, batch_size: int) -> PublicState:
        """The stored memory and an empty cache."""
        config, memory, cache = self.public, None, None
        if config.num_mem_tokens:
            memory = self.memory.expand(batch_size, -1, -1).clone()
        if config.mem_len:
            shape = (batch_size, config.mem_len, config.d_model)
            cache = tuple(self.frequencies.new_zeros(shape) for _ in range(config.n_layer + 1))
        cached = torch.zeros(batch_size, dtype=torch.int64, device=self.frequencies.device)
        return PublicState(memory, cache, cached)

    def forward(
        self, tokens: Tensor, mask: Tensor, state: PublicState
    ) -> tuple[Tensor, PublicState]:
        """See `Backbone`. Padded steps are not masked, as in the public code.

        Features depend on the number of cached states; rows of equal number run in one batch.
        """
        features, new = tokens.new_zeros(*mask.shape, tokens.shape[-1]), state
        for count in sorted(set(state.cached.tolist())):
            rows = (state.cached == count).nonzero()[:, 0]
            features[rows], part = self.segment(tokens[rows], state.take(rows), count)
            new = new.put(rows, part)
        return features, new.where(~mask.any(1), state)

    def segment(
        self, tokens: Tensor, state: PublicState, cached: int, padding: Tensor | None = None
    ) -> tuple[Tensor, PublicState]:
        """One segment: features at the observation tokens, and the next memory and cache.

        The memory tokens precede the steps (read) and, with `mem_at_end`, follow them (write).
        Without write tokens, the outputs of the read tokens are the next memory; but a valve then
        takes the last m outputs, which are those of steps.

        Args:
            tokens: `(b, K, n, d)`.
            state: The state before it.
            cached: The number of cached states of every row.
            padding: `(b, c + L)` bool, True at keys to ignore; see `PublicBlock`.
        """
        config, memory, steps = self.public, state.memory, tokens.flatten(1, 2)  # (b, nK, d)
        before = 0 if memory is None else memory.shape[1]
        surround = [] if memory is None else [memory]
        suffix = surround if config.has_suffix else []
        levels = [torch.cat([*surround, steps, *suffix], dim=1)]
        for index, block in enumerate(self.blocks):
            read = None
            if state.cache is not None:
                read = state.cache[index][:, config.mem_len - cached :]  # (b, c, d)
            levels.append(block(levels[-1], read, self.frequencies, padding))
        last = levels[-1]
        features = last[:, before : before + steps.shape[1]][
            :, self.tokens.read :: self.tokens.count
        ]
        if memory is not None:
            written = last[:, -before:] if config.writes_last_rows else last[:, :before]
            memory = written
            if self.valve is not None:
                memory, _ = self.valve(state.memory, state.memory, written, None)
        # Memory tokens of a segment are cached like its step tokens.
        size, cache = config.mem_len, None
        if state.cache is not None:
            pairs = zip(state.cache, levels, strict=True)
            cache = tuple(torch.cat(pair, dim=1)[:, -size:] for pair in pairs)
        count = (state.cached + last.shape[1]).clamp(max=size)
        return features, PublicState(memory, cache, count)


def load_backbone(
    config: ReferenceConfig, weights: Mapping[str, Tensor], context_length: int = 1
) -> PublicTransformer:
    """A backbone with checked public weights, in their dtype and in evaluation mode."""
    backbone = PublicTransformer(config, context_length)
    state = {"frequencies": weights["pos_emb.inv_freq"]}
    if config.num_mem_tokens:
        state["memory"] = weights["mem_tokens"][:, 0]  # stored as (m, 1, d)
    if config.has_valve:
        state |= _valve(weights)
    for index in range(config.n_layer):
        state |= {
            f"blocks.{index}.{name}": weight
            for name, weight in _block(config, weights, f"layers.{index}").items()
        }
    backbone.to(weights["pos_emb.inv_freq"].dtype).load_state_dict(state)
    return backbone.eval()


def _block(config: ReferenceConfig, weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of a block by our names. The biases of attention are shared by all blocks."""
    found = {
        "attention.qkv.weight": weights[f"{name}.dec_attn.qkv_net.weight"],
        "attention.position.weight": weights[f"{name}.dec_attn.r_net.weight"],
        "attention.out.weight": weights[f"{name}.dec_attn.o_net.weight"],
        "attention.content_bias": weights["r_w_bias"][:, None],
        "attention.position_bias": weights["r_r_bias"][:, None],
    }
    names = {"layer_norm1": "attention_norm"}
    if not config.skip_dec_ffn:
        names |= {"layer_norm2": "feed_forward_norm"}
        names |= {"pos_ff.CoreNet.0": "feed_forward.0", "pos_ff.CoreNet.3": "feed_forward.2"}
    for public, own in names.items():
        for kind in ("weight", "bias"):
            found[f"{own}.{kind}"] = weights[f"{name}.{public}.{kind}"]
    if config.use_gate:
        for public, own in (("gate_mha", "attention_gate"), ("gate_mlp", "feed_forward_gate")):
            part = {letter: weights[f"{name}.{public}.{letter}.weight"] for letter in _GATES}
            found[f"{own}.from_update.weight"] = torch.cat([part["Wr"], part["Wz"], part["Wg"]])
            found[f"{own}.from_stream.weight"] = torch.cat([part["Ur"], part["Uz"]])
            found[f"{own}.from_reset.weight"] = part["Ug"]
            found[f"{own}.bias"] = weights[f"{name}.{public}.bg"]
    return found


_GATES = ("Wr", "Ur", "Wz", "Uz", "Wg", "Ug")


def _valve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for kind in ("weight", "bias"):
        query, key, value, dense = (
            weights[f"mha_mem_to_mem.{layer}.{kind}"] for layer in ("wq", "wk", "wv", "dense")
        )
        found[f"valve.attention.query.{kind}"] = query
        found[f"valve.attention.key_value.{kind}"] = torch.cat([key, value])
        found[f"valve.attention.out.{kind}"] = dense
    return found
