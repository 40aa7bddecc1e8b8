"""Encoders and head: found in the public state dict, then applied.

The state dict says which layers there are and whether a layer stands bare (`ret_emb.weight`) or
opens a sequence (`ret_emb.0.weight`). What leaves no weight behind, such as a Tanh or a padding,
comes from the environment's convention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from rate.reference.config import ReferenceConfig
from rate.reference.environments import Convention, convention_for

Shapes = dict[str, tuple[int | None, ...]]

# Of the three convolutions: the layer's index in its sequence, output channels, kernel, stride.
_CONVOLUTIONS = ((0, 32, 8, 4), (2, 64, 4, 2), (4, 64, 3, 1))
_IMAGE_LINEAR = 7


@dataclass(frozen=True)
class Encoder:
    """One encoder or the head of a public model.

    Attributes:
        kind: `"linear"`, `"embedding"` or `"image"`.
        layer: Name of the layer in the state dict; of the whole sequence for an image.
        shapes: Every weight of it and the shape it must have; None where any size will do.
        tanh: A Tanh follows.
        padding: Zero padding of each convolution, in pixels.
    """

    kind: Literal["linear", "embedding", "image"]
    layer: str
    shapes: Shapes
    tanh: bool
    padding: int = 0


@dataclass(frozen=True)
class Encoders:
    """The three encoders of a step's tokens, and the head."""

    returns: Encoder
    observations: Encoder
    actions: Encoder
    head: Encoder


def find_encoders(config: ReferenceConfig, weights: Mapping[str, Tensor]) -> Encoders:
    """Tell from config and weights which encoders a public model has; the shapes are unchecked."""
    convention = convention_for(config.env_name)
    actions = _find_actions(config, convention, weights)
    return Encoders(
        returns=_linear(weights, "ret_emb", (config.d_model, 1), convention.return_tanh),
        observations=_find_observations(config, convention, weights),
        actions=actions,
        head=_find_head(config, convention, weights, actions.kind == "linear"),
    )


def _locate(weights: Mapping[str, Tensor], prefix: str, tanh: bool) -> tuple[str, bool]:
    """The name of a single-layer encoder's layer, and whether it is the first of a sequence.

    Where the state dict has neither, it is the name that the convention makes likely.
    """
    for layer in (prefix, f"{prefix}.0"):
        if f"{layer}.weight" in weights or f"{layer}.bias" in weights:
            return layer, layer != prefix
    return (f"{prefix}.0", True) if tanh else (prefix, False)


def _linear(
    weights: Mapping[str, Tensor],
    prefix: str,
    shape: tuple[int | None, int | None],
    tanh: bool,
    bias: bool = True,
) -> Encoder:
    layer, in_sequence = _locate(weights, prefix, tanh)
    shapes: Shapes = {f"{layer}.weight": shape}
    if bias:
        shapes[f"{layer}.bias"] = shape[:1]
    return Encoder("linear", layer, shapes, tanh and in_sequence)


def _find_observations(
    config: ReferenceConfig, convention: Convention, weights: Mapping[str, Tensor]
) -> Encoder:
    if convention.observation == "image":
        shapes = _image_shapes(convention, config.d_model)
        tanh, padding = convention.image_tanh, convention.padding
        return Encoder("image", "state_encoder", shapes, tanh, padding)
    if convention.observation == "tokens":
        layer, _ = _locate(weights, "state_encoder", tanh=False)
        # One row per token and one for padding; the vocabulary is the data's, so any number.
        shapes = {f"{layer}.weight": (None, config.d_model)}
        return Encoder("embedding", layer, shapes, tanh=False)
    return _linear(weights, "state_encoder", (config.d_model, config.state_dim), tanh=False)


def _image_shapes(convention: Convention, width: int) -> Shapes:
    channels, *size = convention.image_shape
    shapes: Shapes = {}
    for index, outputs, kernel, stride in _CONVOLUTIONS:
        shapes[f"state_encoder.{index}.weight"] = (outputs, channels, kernel, kernel)
        shapes[f"state_encoder.{index}.bias"] = (outputs,)
        size = [(side + 2 * convention.padding - kernel) // stride + 1 for side in size]
        channels = outputs
    shapes[f"state_encoder.{_IMAGE_LINEAR}.weight"] = (width, channels * size[0] * size[1])
    shapes[f"state_encoder.{_IMAGE_LINEAR}.bias"] = (width,)
    return shapes


def _find_actions(
    config: ReferenceConfig, convention: Convention, weights: Mapping[str, Tensor]
) -> Encoder:
    prefix, width = "action_embeddings", config.d_model
    layer, in_sequence = _locate(weights, prefix, convention.index_tanh)
    stored = weights.get(f"{layer}.weight")
    shape = () if stored is None else tuple(stored.shape)
    rows = (config.act_dim, config.act_dim + 1)
    # A table has no bias; its shape tells as much, unless the width is as small as the table.
    looks_linear = shape == (width, config.act_dim) and width not in rows
    is_linear = looks_linear or f"{layer}.bias" in weights
    if convention.actions == "continuous" or (convention.actions == "either" and is_linear):
        return _linear(weights, prefix, (width, config.act_dim), convention.vector_tanh)
    # Models of padded data have one row more than actions.
    spare = convention.padding_row
    if spare is None:
        spare = shape[:1] != rows[:1]
    shapes: Shapes = {f"{layer}.weight": (rows[spare], width)}
    return Encoder("embedding", layer, shapes, convention.index_tanh and in_sequence)


def _find_head(
    config: ReferenceConfig,
    convention: Convention,
    weights: Mapping[str, Tensor],
    continuous: bool,
) -> Encoder:
    tanh = continuous and convention.head_tanh
    layer, in_sequence = _locate(weights, "head", tanh)
    # The squashed head has a bias and the bare one has none; a bias that is there is used.
    bias = (tanh and in_sequence) or f"{layer}.bias" in weights
    return _linear(weights, "head", (config.act_dim, config.d_model), tanh, bias)


def encode(encoder: Encoder, weights: Mapping[str, Tensor], values: Tensor) -> Tensor:
    """Apply an encoder (or the head).

    Args:
        encoder: Which.
        weights: The model's checked weights.
        values: `(B, L, width)`, class indices `(B, L)` int64, or images `(B, L, C, H, W)`.

    Returns:
        `(B, L, d)`; of the head `(B, L, A)`.
    """
    if encoder.kind == "embedding":
        encoded = functional.embedding(values, weights[f"{encoder.layer}.weight"])
    elif encoder.kind == "image":
        encoded = _encode_images(encoder, weights, values)
    else:
        encoded = _apply_linear(encoder.layer, weights, values)
    return torch.tanh(encoded) if encoder.tanh else encoded


def _encode_images(encoder: Encoder, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    hidden = images.flatten(0, 1)  # (B, L, C, H, W) -> (B*L, C, H, W)
    for index, _, _, stride in _CONVOLUTIONS:
        name = f"{encoder.layer}.{index}"
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        hidden = functional.conv2d(hidden, kernel, bias, stride, encoder.padding).relu()
    features = hidden.reshape(*images.shape[:2], -1)  # (B, L, features)
    return _apply_linear(f"{encoder.layer}.{_IMAGE_LINEAR}", weights, features)


def _apply_linear(layer: str, weights: Mapping[str, Tensor], values: Tensor) -> Tensor:
    return functional.linear(values, weights[f"{layer}.weight"], weights.get(f"{layer}.bias"))
