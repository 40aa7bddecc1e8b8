"""A loaded public model, and the walk over the segments of a trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rate.reference import inputs
from rate.reference.blocks import apply_block, retain
from rate.reference.config import ReferenceConfig
from rate.reference.encoders import Encoders, encode
from rate.reference.weights import checked_weights


@dataclass(frozen=True)
class SegmentResult:
    """What one segment answers and hands on.

    Attributes:
        logits: `(B, K, A)`; the predicted action itself where actions are real vectors.
        memory_tokens: `(B, m, d)` for the next segment, after the valve if there is one; None
            without memory tokens.
        cache: `(B, c, d)` per level for the next segment, c <= `mem_len`. Level 0 is the input of
            the first block, level n the output of the n-th. None without cache.
    """

    logits: Tensor
    memory_tokens: Tensor | None
    cache: list[Tensor] | None


@dataclass(frozen=True)
class ReferenceModel:
    """A model of the public implementation.

    Attributes:
        config: Its constructor arguments.
        encoders: Its encoders and head.
        weights: The weights that its answers depend on, under their public names.
    """

    config: ReferenceConfig
    encoders: Encoders
    weights: dict[str, Tensor]

    @property
    def dtype(self) -> torch.dtype:
        return self.weights["pos_emb.inv_freq"].dtype

    @property
    def device(self) -> torch.device:
        return self.weights["pos_emb.inv_freq"].device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ReferenceModel:
        """A copy on another device or in another precision (float32 or float64)."""
        moved = {name: tensor.to(device, dtype) for name, tensor in self.weights.items()}
        return replace(self, weights=moved)


def load_reference(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ReferenceModel:
    """Make a model of the public RATE implementation answer here.

    Loading reads tensors and runs no code of theirs: hand it what `safetensors` read.

    Args:
        config: The public constructor's arguments, by their public names: the main one's, or that
            of the Atari and MuJoCo folders.
        weights: The public state dict, by its own names (a common prefix `weights.` or `module.`
            is dropped). Parameters that no answer depends on may be there or not.

    Returns:
        The model, in float32, or in float64 if a weight is.

    Raises:
        ValueError: An argument is unknown or has a value that is not supported (checked before
            the weights are looked at); or weights are missing, unexpected or of a wrong shape.
    """
    parsed = ReferenceConfig.parse(config)
    used, encoders = checked_weights(parsed, weights)
    return ReferenceModel(parsed, encoders, used)


@torch.no_grad()
def run_segments(
    model: ReferenceModel,
    observations: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    context_length: int,
) -> list[SegmentResult]:
    """Feed a batch of trajectories segment by segment, handing on memory and cache.

    Every segment is fed whole: return-to-go, observation and action of each of its steps.

    Args:
        model: From `load_reference`.
        observations: `(B, T, state_dim)`, images `(B, T, C, H, W)` in [0, 1] (uint8 pixels are
            divided by 255), or token indices `(B, T, 1)`.
        actions: `(B, T, 1)` class indices in any dtype, `padding_idx` where a step is padded; or
            real vectors `(B, T, A)`.
        returns_to_go: `(B, T, 1)`.
        context_length: Steps K of a segment. If it does not divide T, the last is shorter.

    Returns:
        One result per segment.

    Raises:
        ValueError: A shape or a value does not fit the model; the message says which.
    """
    steps = inputs.check(model, observations, actions, returns_to_go, context_length)
    memory = _initial_memory(model, steps.returns_to_go.shape[0])
    cache: list[Tensor] | None = None
    results: list[SegmentResult] = []
    for start in range(0, steps.returns_to_go.shape[1], context_length):
        tokens = _tokens(model, steps.part(start, start + context_length))
        result = _run_segment(model, tokens, memory, cache)
        memory, cache = result.memory_tokens, result.cache
        results.append(result)
    return results


def _initial_memory(model: ReferenceModel, batch_size: int) -> Tensor | None:
    """The stored initial memory for every row: `(m, 1, d)` to `(B, m, d)`.

    The public code makes it of one random vector repeated m times, so that in a fresh model all
    memory tokens are equal; it is read as stored.
    """
    if not model.config.num_mem_tokens:
        return None
    return model.weights["mem_tokens"].transpose(0, 1).expand(batch_size, -1, -1)


def _tokens(model: ReferenceModel, steps: inputs.Steps) -> Tensor:
    """Three tokens per step, (return-to-go, observation, action): `(B, 3K, d)`."""
    encoders, weights = model.encoders, model.weights
    parts = (
        encode(encoders.returns, weights, steps.returns_to_go),
        encode(encoders.observations, weights, steps.observations),
        encode(encoders.actions, weights, steps.actions),
    )
    return torch.stack(parts, dim=2).flatten(1, 2)  # (B, K, 3, d) -> (B, 3K, d)


def _run_segment(
    model: ReferenceModel, tokens: Tensor, memory: Tensor | None, cache: list[Tensor] | None
) -> SegmentResult:
    """Read memory, run the stack, answer at the observations, write memory and cache.

    The same memory stands before the tokens, to be read, and (`mem_at_end`) behind them, where it
    is written. Without the rows behind, the rows before are what is handed on; but a valve then
    reads as many of the last rows as there are memory tokens, which are those of tokens.
    """
    config, weights = model.config, model.weights
    before = 0 if memory is None else memory.shape[1]
    surround = [] if memory is None else [memory]
    hidden = torch.cat([*surround, tokens, *(surround if config.has_suffix else [])], dim=1)
    levels = [hidden]
    for index in range(config.n_layer):
        read = None if cache is None else cache[index]
        levels.append(apply_block(config, weights, f"layers.{index}", levels[-1], read))
    last = levels[-1]

    observed = last[:, before : before + tokens.shape[1]][:, 1::3]  # (B, K, d)
    logits = encode(model.encoders.head, weights, observed)
    new_memory = None
    if memory is not None:
        new_memory = last[:, -before:] if config.writes_last_rows else last[:, :before]
        if config.has_valve:
            new_memory = retain(config, weights, memory, new_memory)
    return SegmentResult(logits, new_memory, _new_cache(config, cache, levels))


def _new_cache(
    config: ReferenceConfig, cache: list[Tensor] | None, levels: list[Tensor]
) -> list[Tensor] | None:
    """The last `mem_len` hidden states of each level, of the old cache and this segment.

    The memory rows of a segment are cached like its tokens.
    """
    if not config.mem_len:
        return None
    if cache is not None:
        levels = [torch.cat(pair, dim=1) for pair in zip(cache, levels, strict=True)]
    return [level[:, -config.mem_len :] for level in levels]
