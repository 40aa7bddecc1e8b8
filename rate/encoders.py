"""Observation encoders, chosen by the observation space."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rate.batch import Observations
from rate.config import ConfigError


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
        """Normalise by `(x - mean) / std` from now on."""
        self.mean.copy_(mean.flatten())
        self.std.copy_(std.flatten())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(-self.axes) if self.axes else x[..., None]
        return self.linear((flat.to(self.mean.dtype) - self.mean) / self.std)


class SymbolEncoder(nn.Module):
    """The sum of one embedding per component of a discrete or multi-discrete value."""

    offsets: Tensor

    def __init__(self, sizes: list[int], d_model: int, start: int = 0) -> None:
        super().__init__()
        offsets = np.concatenate(([0], np.cumsum(sizes)[:-1])) - start
        self.register_buffer("offsets", torch.as_tensor(offsets), persistent=False)
        self.embedding = nn.Embedding(sum(sizes), d_model)
        self.scalar = len(sizes) == 1

    def forward(self, x: Tensor) -> Tensor:
        if self.scalar:
            x = x[..., None] if x.ndim == 2 else x
        return self.embedding(x.long() + self.offsets).sum(-2)


class ImageEncoder(nn.Module):
    """A convolutional network over images of any size, uint8 in (or floats in [0, 1]).

    Three layers as in DQN (Mnih et al. 2015); kernels and strides shrink to fit small images.
    Channels may come first or last: the axis with at most `MAX_CHANNELS` entries is taken.
    """

    MAX_CHANNELS = 16

    def __init__(self, shape: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        self.channels_last = shape[0] > self.MAX_CHANNELS >= shape[-1]
        if self.channels_last:
            shape = (shape[-1], *shape[:-1])
        if shape[0] > self.MAX_CHANNELS:
            raise ConfigError(
                f"An image of shape {shape} has neither its first nor its last axis within "
                f"{self.MAX_CHANNELS} channels."
            )
        channels, height, width = shape
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
        return self.linear(features).unflatten(0, x.shape[:2])


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
        return self.mix(torch.cat([encoder(x[key]) for key, encoder in parts], dim=-1))


def make_encoder(space: gym.Space, d_model: int, name: str = "observation") -> nn.Module:
    """The encoder of a space: `(B, T, *space)` to `(B, T, d_model)`.

    Raises:
        ConfigError: If there is no encoder for the space.
    """
    if isinstance(space, gym.spaces.Dict):
        return DictionaryEncoder(space, d_model)
    if isinstance(space, gym.spaces.Discrete):
        return SymbolEncoder([int(space.n)], d_model, start=int(space.start))
    if isinstance(space, gym.spaces.MultiDiscrete):
        return SymbolEncoder(space.nvec.flatten().tolist(), d_model)
    if isinstance(space, gym.spaces.Box):
        if len(space.shape) == 3:
            return ImageEncoder(space.shape, d_model)
        return VectorEncoder(space.shape, d_model)
    raise ConfigError(
        f"There is no encoder for the {name} space {space}; supported are Box (vectors and "
        "images), Discrete, MultiDiscrete and Dict."
    )
