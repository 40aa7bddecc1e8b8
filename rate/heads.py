"""Action heads: prediction, loss and decoding, chosen by the action space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.config import ConfigError


@dataclass(frozen=True)
class Decoding:
    """How an action is drawn from a prediction.

    Attributes:
        method: `argmax`, or `sample` from the softmax. Continuous actions have only the former.
        temperature: Divides the logits before sampling.
        top_k: Sample among the k most likely actions alone; None is all of them.
    """

    method: Literal["argmax", "sample"] = "argmax"
    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.method not in ("argmax", "sample"):
            raise ConfigError(f"decoding.method is '{self.method}'; choose argmax or sample.")
        if not self.temperature > 0:
            raise ConfigError(f"decoding.temperature is {self.temperature}; it must be above 0.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"decoding.top_k is {self.top_k}; it must be at least 1.")

    def __call__(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Action indices `(...)` from logits `(..., A)`."""
        if self.method == "argmax":
            return logits.argmax(-1)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            threshold = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        probabilities = (logits.float() / self.temperature).softmax(-1)
        flat = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
        return flat.view(logits.shape[:-1])


class DiscreteHead(nn.Module):
    """Logits over the actions of a `Discrete` space, actions counted from 0."""

    def __init__(self, d_model: int, num_actions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, num_actions, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden)

    def loss(self, predictions: Tensor, actions: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of every step: `(B, T, A)` and `(B, T)` to `(B, T)`."""
        flat = F.cross_entropy(
            predictions.flatten(0, -2).float(),
            actions.flatten(),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return flat.view(actions.shape)

    def correct(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Whether the likeliest action is the right one, `(B, T)` bool."""
        return predictions.argmax(-1) == actions

    def decode(
        self, predictions: Tensor, decoding: Decoding, generator: torch.Generator | None = None
    ) -> Tensor:
        return decoding(predictions, generator)


class MultiDiscreteHead(nn.Module):
    """Independent logits for every component of a `MultiDiscrete` space."""

    def __init__(self, d_model: int, sizes: list[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(DiscreteHead(d_model, size) for size in sizes)
        self.sizes = sizes

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of all components side by side: `(B, T, sum of sizes)`."""
        return torch.cat([part(hidden) for part in self.parts], dim=-1)

    def loss(self, predictions: Tensor, actions: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Sum of the components' cross-entropies: actions `(B, T, C)` to `(B, T)`."""
        losses = [
            part.loss(logits, actions[..., i], label_smoothing)
            for i, (part, logits) in enumerate(self._by_part(predictions))
        ]
        return torch.stack(losses).sum(0)

    def correct(self, predictions: Tensor, actions: Tensor) -> Tensor:
        hits = [
            part.correct(logits, actions[..., i])
            for i, (part, logits) in enumerate(self._by_part(predictions))
        ]
        return torch.stack(hits).all(0)

    def decode(
        self, predictions: Tensor, decoding: Decoding, generator: torch.Generator | None = None
    ) -> Tensor:
        parts = [decoding(logits, generator) for _, logits in self._by_part(predictions)]
        return torch.stack(parts, dim=-1)

    def _by_part(self, predictions: Tensor) -> list[tuple[DiscreteHead, Tensor]]:
        return list(zip(self.parts, predictions.split(self.sizes, dim=-1), strict=True))


class ContinuousHead(nn.Module):
    """A deterministic action: tanh scaled to the bounds of a `Box`, linear where it has none."""

    low: Tensor
    high: Tensor

    def __init__(self, d_model: int, space: gym.spaces.Box) -> None:
        super().__init__()
        self.bounded = bool(space.is_bounded())
        self.linear = nn.Linear(d_model, int(space.shape[0]))
        self.register_buffer("low", torch.as_tensor(space.low), persistent=False)
        self.register_buffer("high", torch.as_tensor(space.high), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        raw = self.linear(hidden)
        if not self.bounded:
            return raw
        return self.low + (torch.tanh(raw) + 1) / 2 * (self.high - self.low)

    def loss(self, predictions: Tensor, actions: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error over the components of an action: `(B, T, A)` to `(B, T)`."""
        return (predictions.float() - actions.float()).square().mean(-1)

    def correct(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Whether every component is within a tenth of its range, `(B, T)` bool."""
        span = (self.high - self.low) if self.bounded else torch.ones_like(self.low)
        return ((predictions - actions).abs() <= 0.1 * span).all(-1)

    def decode(
        self, predictions: Tensor, decoding: Decoding, generator: torch.Generator | None = None
    ) -> Tensor:
        return predictions


ActionHead = DiscreteHead | MultiDiscreteHead | ContinuousHead


def make_head(space: gym.Space, d_model: int) -> ActionHead:
    """The action head of a space.

    Raises:
        ConfigError: If there is no head for the space.
    """
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return DiscreteHead(d_model, int(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return MultiDiscreteHead(d_model, space.nvec.tolist())
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return ContinuousHead(d_model, space)
    raise ConfigError(
        f"There is no action head for the space {space}; supported are Discrete (from 0), "
        "MultiDiscrete with one axis and Box with one axis."
    )
