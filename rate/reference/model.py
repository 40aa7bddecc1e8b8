"""Loading a public model, and running it over the segments of a trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rate.reference import inputs
from rate.reference.backbone import PublicTransformer, load_backbone
from rate.reference.config import ReferenceConfig
from rate.reference.encoders import Interface, encode
from rate.reference.weights import backbone_shapes, checked_weights, unused_shapes


@dataclass(frozen=True)
class SegmentResult:
    """The outputs of a segment and the state after it.

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
class ReferenceModel(Interface):
    """A model of the public implementation.

    Attributes:
        backbone: The model between its encoders and its head.
    """

    backbone: PublicTransformer

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ReferenceModel:
        """A copy on another device or in another precision (float32 or float64)."""
        moved = {name: tensor.to(device, dtype) for name, tensor in self.weights.items()}
        return replace(self, weights=moved, backbone=deepcopy(self.backbone).to(device, dtype))


def load_reference(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ReferenceModel:
    """Loads a model of the public RATE implementation.

    No code of the public implementation is run.

    Args:
        config: The public constructor's arguments, by their public names: the main one's, or that
            of the Atari and MuJoCo folders.
        weights: The public state dict, by its own names (a common prefix `weights.` or `module.`
            is dropped). Parameters that no output depends on are optional.

    Returns:
        The model, in float32, or in float64 if a weight is.

    Raises:
        ValueError: An argument is unknown or has a value that is not supported (checked before
            the weights are looked at); or weights are missing, unexpected or of a wrong shape.
    """
    parsed = ReferenceConfig.parse(config)
    used, encoders = checked_weights(
        parsed, weights, backbone_shapes(parsed), unused_shapes(parsed)
    )
    outer = {name: used[name] for name in encoders.shapes}
    return ReferenceModel(parsed, encoders, outer, load_backbone(parsed, used))


@torch.no_grad()
def run_segments(
    model: ReferenceModel,
    observations: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    context_length: int,
) -> list[SegmentResult]:
    """Runs a batch of trajectories segment by segment, carrying memory and cache.

    Teacher forcing: a segment has return-to-go, observation and action of each of its steps.

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
    state = model.backbone.initial_state(steps.returns_to_go.shape[0])
    results: list[SegmentResult] = []
    for start in range(0, steps.returns_to_go.shape[1], context_length):
        tokens = embed(model, steps.part(start, start + context_length))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        features, state = model.backbone(tokens, mask, state)
        logits = encode(model.encoders.head, model.weights, features)
        cache, count = state.cache, int(state.cached[0])
        real = None if cache is None else [level[:, level.shape[1] - count :] for level in cache]
        results.append(SegmentResult(logits, state.memory, real))
    return results


def embed(model: Interface, steps: inputs.Steps) -> Tensor:
    """Three tokens per step, (return-to-go, observation, action): `(B, K, 3, d)`."""
    encoders, weights = model.encoders, model.weights
    parts = (
        encode(encoders.returns, weights, steps.returns_to_go),
        encode(encoders.observations, weights, steps.observations),
        encode(encoders.actions, weights, steps.actions),
    )
    return torch.stack(parts, dim=2)
