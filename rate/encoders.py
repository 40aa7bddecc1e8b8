"""Observation encoders, chosen by the observation space."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rate.batch import Observations
from rate.errors import ConfigError
from rate.scales import LEAST, constant, unit_of
from rate.spaces import (
    check_action_space,
    check_observation_space,
    choices_of,
    is_image,
)
from rate.tracing import is_exporting

_FEW = 16  # frames: so few are encoded faster than they are compared


class VectorEncoder(nn.Module):
    """A linear layer over a (normalised) vector; more axes than one are flattened.

    The normalisation travels with the weights: it is stored as buffers.
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

    def set_normalisation(self, mean: Tensor, std: Tensor) -> Tensor:
        """Normalise by `(x - mean) / std` from now on.

        No component is divided by less than `LEAST`, and one that never varies is centred alone.

        Returns:
            `(D,)` bool, the components that are nearly constant, whose `std` is not used.

        Raises:
            ValueError: If a mean is not finite, or a deviation is negative or not finite.
        """
        mean, std = mean.flatten(), std.flatten()
        self.set_scale(mean, unit_of(mean, std, LEAST))
        return constant(mean, std) | (std < LEAST)

    def set_scale(self, centre: Tensor, unit: Tensor) -> None:
        """Normalises by `(x - centre) / unit` from now on; `(D,)` each, units above 0."""
        self.mean.copy_(centre)
        self.std.copy_(unit)

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
    Channels may come first or last: the shorter of the two axes is taken, at most `MOST_CHANNELS`.

    Args:
        shape: Of an image.
        d_model: Width of the embedding.
        channels: Of the first layer; the other two have twice as many. 0 is no layer: the embedding
            is a linear map of the pixels.
        norm: Whether the embedding is normalised (LayerNorm).
        contrast: Whether each image is standardised first, by a deviation of at least one of 255
            grey levels.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        d_model: int,
        channels: int = 32,
        norm: bool = False,
        contrast: bool = False,
    ) -> None:
        super().__init__()
        if len(shape) == 2:
            shape = (1, *shape)
        self.shape, self.contrast = shape, contrast
        self.channels_last = shape[-1] < shape[0]
        depth, height, width = (shape[-1], *shape[:-1]) if self.channels_last else shape
        layers: list[nn.Module] = []
        sizes = ((channels, 8, 4), (2 * channels, 4, 2), (2 * channels, 3, 1))
        for out, kernel, stride in sizes if channels else ():
            kernel = min(kernel, height, width)
            stride = min(stride, max(1, min(height, width) // kernel))
            layers += [nn.Conv2d(depth, out, kernel, stride), nn.ReLU()]
            depth = out
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.linear = nn.Linear(depth * height * width, d_model)
        self.norm = nn.LayerNorm(d_model) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, [C,] H, W)` or `(B, T, H, W, C)` to `(B, T, d_model)`; all frames in one call."""
        frames = x.reshape(-1, *self.shape)
        # Grid worlds have few distinct frames. On a GPU the search would need a synchronisation.
        in_parts = x.device.type == "cpu" and not is_exporting()
        found = distinct_frames(frames) if in_parts else None
        frames = frames if found is None else frames[found[0]]
        # A CPU is faster on batches that fit its caches.
        parts = [self._encode(part) for part in (torch.split(frames, 64) if in_parts else [frames])]
        features = parts[0] if len(parts) == 1 else torch.cat(parts)
        if found is not None:
            features = features[found[1]]
        return features.view(*x.shape[:2], -1)

    def _encode(self, frames: Tensor) -> Tensor:
        """`(F, C, H, W)` or `(F, H, W, C)` to `(F, d_model)`."""
        if self.channels_last:
            frames = frames.movedim(-1, 1)
        pixels = frames.to(self.linear.weight.dtype if self.contrast else self._precision(frames))
        if frames.dtype == torch.uint8:
            pixels.mul_(1 / 255)  # in place: memory for another copy would cost more than the sum
        if self.contrast:
            correction = min(1, pixels[0].numel() - 1)
            deviation, mean = torch.std_mean(
                pixels, dim=(1, 2, 3), correction=correction, keepdim=True
            )
            pixels = (pixels - mean) / deviation.clamp(min=1 / 255)
        features: Tensor = self.norm(self.linear(self.convolutions(pixels)))
        return features

    def _precision(self, frames: Tensor) -> torch.dtype:
        """The precision of the convolutions: that of autocast, which skips float32 frames."""
        device = frames.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return self.linear.weight.dtype


def distinct_frames(frames: Tensor) -> tuple[Tensor, Tensor] | None:
    """Finds the distinct ones of uint8 frames `(F, ...)`, to encode each once.

    Frames are grouped by a hash; the frames of a group are then compared, so that it is exact.

    Returns:
        The indices `(D,)` of the distinct frames, and for every frame which of these it equals
        `(F,)`; None if most frames are distinct, or there are too few.
    """
    size = frames[0].numel() if len(frames) else 0
    if frames.dtype != torch.uint8 or len(frames) < _FEW or size % 8:
        return None
    words = frames.reshape(len(frames), size).contiguous().view(torch.int64)  # (F, size / 8)
    factors = torch.arange(words.shape[1]) * 0x5851F42D4C957F2D + 0x14057B7EF767814F
    _, kinds, counts = torch.unique(words @ factors, return_inverse=True, return_counts=True)
    if 2 * len(counts) > len(frames):
        return None
    first = torch.empty_like(counts)
    first[kinds] = torch.arange(len(frames))  # any one of them
    return (first, kinds) if torch.equal(words, words[first][kinds]) else None


class DictionaryEncoder(nn.Module):
    """The sum of one embedding per entry of a dictionary.

    Each embedding is normalised first. Without it, that of an image is many times larger than that
    of a bit beside it, and learning took several times as many updates.
    """

    def __init__(self, space: gym.spaces.Dict, d_model: int, image_channels: int) -> None:
        super().__init__()
        self.keys = list(space.spaces)
        self.encoders = nn.ModuleList(
            nn.Sequential(
                make_encoder(part, d_model, image_channels, name=key), nn.LayerNorm(d_model)
            )
            for key, part in space.spaces.items()
        )

    def forward(self, x: Observations) -> Tensor:
        if not isinstance(x, dict):
            raise TypeError(f"Observations must be a dictionary with the keys {self.keys}.")
        parts = zip(self.keys, self.encoders, strict=True)
        out: Tensor = torch.stack([encoder(x[key]) for key, encoder in parts]).sum(0)
        return out


def make_encoder(
    space: gym.Space[Any],
    d_model: int,
    image_channels: int = 32,
    image_norm: bool = False,
    image_contrast: bool = False,
    name: str = "observation",
) -> nn.Module:
    """The encoder of a space: `(B, T, *space)` to `(B, T, d_model)`.

    Raises:
        ConfigError: If there is no encoder for the space.
    """
    check_observation_space(space, name)
    if isinstance(space, gym.spaces.Dict):
        return DictionaryEncoder(space, d_model, image_channels)
    if isinstance(space, gym.spaces.Box):
        if is_image(space):
            return ImageEncoder(space.shape, d_model, image_channels, image_norm, image_contrast)
        return VectorEncoder(space.shape, d_model)
    return _symbols(space, d_model)


def make_action_encoder(space: gym.Space[Any], d_model: int) -> nn.Module:
    """The encoder of a space of actions: `(B, T, *space)` to `(B, T, d_model)`.

    Raises:
        ConfigError: If models do not act in the space.
    """
    check_action_space(space)
    if choices_of(space) is None:
        return VectorEncoder(tuple(space.shape or ()), d_model)
    return _symbols(space, d_model)


def _symbols(space: gym.Space[Any], d_model: int) -> SymbolEncoder:
    choices = choices_of(space)
    if choices is None:
        raise ConfigError(f"The space {space} is none of whole numbers.")
    return SymbolEncoder(choices.sizes, choices.starts, d_model)
