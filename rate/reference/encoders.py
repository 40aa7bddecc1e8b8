"""Encoders and head: found in the public state dict, then applied.

The environment's convention says which layers there are, whether a layer stands bare
(`ret_emb.weight`) or opens a sequence (`ret_emb.0.weight`), and what leaves no weight behind, such
as a Tanh or a padding. Where it leaves something open, the state dict tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from rate.reference.config import ReferenceConfig
from rate.reference.environments import Convention, Form, convention_for

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

    @property
    def shapes(self) -> Shapes:
        """Their weights and the shapes that these must have."""
        parts = (self.returns, self.observations, self.actions, self.head)
        return {name: shape for part in parts for name, shape in part.shapes.items()}


@dataclass(frozen=True)
class Interface:
    """The encoders and the head of a public model, with their weights.

    Attributes:
        config: Its constructor arguments.
        encoders: Its encoders and head.
        weights: Their weights, under their public names.
    """

    config: ReferenceConfig
    encoders: Encoders
    weights: dict[str, Tensor]

    @property
    def dtype(self) -> torch.dtype:
        return self._any_weight.dtype

    @property
    def device(self) -> torch.device:
        return self._any_weight.device

    @property
    def _any_weight(self) -> Tensor:
        return next(iter(self.weights.values()))


def find_encoders(config: ReferenceConfig, weights: Mapping[str, Tensor]) -> Encoders:
    """Finds the encoders of a public model by config and weights; their shapes are not checked."""
    convention = convention_for(config.env_name)
    actions = _find_actions(config, convention, weights)
    return Encoders(
        returns=_linear(weights, "ret_emb", (config.d_model, 1), convention.returns),
        observations=_find_observations(config, convention, weights),
        actions=actions,
        head=_find_head(config, convention, weights, actions.kind == "linear"),
    )


def _stored_as(weights: Mapping[str, Tensor], prefix: str) -> str:
    """The name of a single-layer encoder's layer: the prefix, or the first of a sequence."""
    first = f"{prefix}.0"
    return first if f"{first}.weight" in weights or f"{first}.bias" in weights else prefix


def _locate(weights: Mapping[str, Tensor], prefix: str, form: Form) -> tuple[str, bool]:
    """The name of a single-layer encoder's layer, and whether a Tanh follows it."""
    if form in ("bare", "tanh"):
        tanh = form == "tanh"
        return (f"{prefix}.0" if tanh else prefix), tanh
    layer = _stored_as(weights, prefix)
    return layer, form == "stored" and layer != prefix


def _linear(
    weights: Mapping[str, Tensor],
    prefix: str,
    shape: tuple[int | None, int | None],
    form: Form,
    bias: bool = True,
) -> Encoder:
    layer, tanh = _locate(weights, prefix, form)
    shapes: Shapes = {f"{layer}.weight": shape}
    if bias:
        shapes[f"{layer}.bias"] = shape[:1]
    return Encoder("linear", layer, shapes, tanh)


def _find_observations(
    config: ReferenceConfig, convention: Convention, weights: Mapping[str, Tensor]
) -> Encoder:
    if convention.observation == "image":
        shapes = _image_shapes(convention, config.d_model)
        tanh, padding = convention.image_tanh, convention.padding
        return Encoder("image", "state_encoder", shapes, tanh, padding)
    if convention.observation == "tokens":
        layer, _ = _locate(weights, "state_encoder", "linear")
        # One row per token and one for padding; the vocabulary is the data's, so any number.
        shapes = {f"{layer}.weight": (None, config.d_model)}
        return Encoder("embedding", layer, shapes, tanh=False)
    return _linear(weights, "state_encoder", (config.d_model, config.state_dim), "linear")


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
    classes = count_classes(config, weights)
    stored = _stored_as(weights, prefix)
    table = weights.get(f"{stored}.weight")
    shape = () if table is None else tuple(table.shape)
    rows = (classes, classes + 1)
    # A table has no bias; its shape tells as much, unless the width is as small as the table.
    looks_linear = shape == (width, config.act_dim) and width not in rows
    is_linear = looks_linear or f"{stored}.bias" in weights
    if convention.actions == "continuous" or (convention.actions == "either" and is_linear):
        return _linear(weights, prefix, (width, config.act_dim), convention.vector)
    layer, tanh = _locate(weights, prefix, convention.index)
    # Models of padded data have one row more than actions.
    spare = convention.padding_row
    if spare is None:
        spare = shape[:1] != rows[:1]
    shapes: Shapes = {f"{layer}.weight": (rows[spare], width)}
    return Encoder("embedding", layer, shapes, tanh)


def count_classes(config: ReferenceConfig, weights: Mapping[str, Tensor]) -> int:
    """Number of action classes: `act_dim`, or the vocabulary if the stored head has so many."""
    head = weights.get("head.weight")
    if config.n_token is not None and head is not None and head.shape[:1] == (config.n_token,):
        return config.n_token
    return config.act_dim


def _find_head(
    config: ReferenceConfig,
    convention: Convention,
    weights: Mapping[str, Tensor],
    continuous: bool,
) -> Encoder:
    form: Form = convention.head if continuous else "bare"
    layer, tanh = _locate(weights, "head", form)
    # The squashed head has a bias and the bare one has none; a bias that is there is used.
    bias = tanh or f"{layer}.bias" in weights
    outputs = config.act_dim if continuous else count_classes(config, weights)
    return _linear(weights, "head", (outputs, config.d_model), form, bias)


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
