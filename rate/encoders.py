"""Observation encoders, chosen by the observation space."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rate.batch import Observations
from rate.errors import ConfigError


class VectorEncoder(nn.Module):
    """A linear layer over a (normalised) vector; more axes than one are flattened.

    The normalisation travels with the weights: `set_normalisation` stores it as buffers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        self.axes = len(shape)
        width = int(np.prod(shape))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.linear = nn.Linear(width, d_model)

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Normalise by `(x - mean) / std` from now on; a component that never varies is centred."""
        self.mean.copy_(mean.flatten())
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)).flatten())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(-self.axes) if self.axes else x[..., None]
        out: Tensor = self.linear((flat.to(self.mean.dtype) - self.mean) / self.std)
        return out


class SymbolEncoder(nn.Module):
    """The sum of one embedding per component of a discrete or multi-discrete value.

    Values are brought within the space: padding is 0, which need not be one of them.

    Args:
        sizes: How many values each component has.
        start: The lowest value of each component.
        d_model: Width of the embedding.
    """

    start: Tensor
    last: Tensor
    offsets: Tensor

    def __init__(self, sizes: list[int], start: list[int], d_model: int) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor(start), persistent=False)
        self.register_buffer("last", torch.tensor(sizes) - 1, persistent=False)
        self.register_buffer("offsets", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        self.embedding = nn.Embedding(sum(sizes), d_model)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T)` or `(B, T, *components)` to `(B, T, d_model)`."""
        components = x.reshape(*x.shape[:2], -1).long() - self.start
        index = components.clamp(min=0).minimum(self.last) + self.offsets
        out: Tensor = self.embedding(index).sum(-2)
        return out


class ImageEncoder(nn.Module):
    """A convolutional network over images of any size, uint8 in (or floats in [0, 1]).

    Three layers as in DQN (Mnih et al. 2015); kernels and strides shrink to fit small images.
    Channels may come first or last: the shorter of the two axes is taken, at most `MAX_CHANNELS`.
    """

    MAX_CHANNELS = 16

    def __init__(self, shape: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        if min(shape[0], shape[-1]) > self.MAX_CHANNELS:
            raise ConfigError(
                f"An image needs at most {self.MAX_CHANNELS} channels in its first or last axis, "
                f"not the shape {shape}; use a flat Box for what is no image."
            )
        self.channels_last = shape[-1] < shape[0]
        channels, height, width = (shape[-1], *shape[:-1]) if self.channels_last else shape
        layers: list[nn.Module] = []
        for out, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            kernel = min(kernel, height, width)
            stride = min(stride, max(1, min(height, width) // kernel))
            layers += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU()]
            channels = out
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.linear = nn.Linear(channels * height * width, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, C, H, W)` or `(B, T, H, W, C)` to `(B, T, d_model)`; every frame in one call."""
        frames = x.flatten(0, 1)
        if self.channels_last:
            frames = frames.movedim(-1, 1)
        scale = 1 / 255 if x.dtype == torch.uint8 else 1.0
        features = self.convolutions(frames.to(self.linear.weight.dtype) * scale)
        out: Tensor = self.linear(features).unflatten(0, x.shape[:2])
        return out


class DictionaryEncoder(nn.Module):
    """One encoder per entry of a dictionary, mixed by a linear layer."""

    def __init__(self, space: gym.spaces.Dict, d_model: int) -> None:
        super().__init__()
        self.keys = list(space.spaces)
        self.encoders = nn.ModuleList(
            make_encoder(part, d_model, name=key) for key, part in space.spaces.items()
        )
        self.mix = nn.Linear(len(self.keys) * d_model, d_model)

    def forward(self, x: Observations) -> Tensor:
        if not isinstance(x, dict):
            raise TypeError(f"Observations must be a dictionary with the keys {self.keys}.")
        parts = zip(self.keys, self.encoders, strict=True)
        out: Tensor = self.mix(torch.cat([encoder(x[key]) for key, encoder in parts], dim=-1))
        return out


def make_encoder(space: gym.Space[Any], d_model: int, name: str = "observation") -> nn.Module:
    """The encoder of a space: `(B, T, *space)` to `(B, T, d_model)`.

    Raises:
        ConfigError: If there is no encoder for the space.
    """
    if isinstance(space, gym.spaces.Dict):
        return DictionaryEncoder(space, d_model)
    if isinstance(space, gym.spaces.Discrete):
        return SymbolEncoder([int(space.n)], [int(space.start)], d_model)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return SymbolEncoder(space.nvec.ravel().tolist(), space.start.ravel().tolist(), d_model)
    if isinstance(space, gym.spaces.Box):
        if len(space.shape) == 3:
            return ImageEncoder(space.shape, d_model)
        return VectorEncoder(space.shape, d_model)
    raise ConfigError(
        f"There is no encoder for the {name} space {space}; supported are Box (vectors and "
        "images), Discrete, MultiDiscrete and Dict."
    )
