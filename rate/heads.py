"""Action heads: prediction, loss and decoding, chosen by the action space."""

from __future__ import annotations

import math
from typing import Any, cast

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.config import Decoding
from rate.errors import ConfigError
from rate.scales import box_scale, unit_of
from rate.spaces import Choices, check_action_space, choices_of


def decode_logits(logits: Tensor, decoding: Decoding, uniforms: Tensor | None = None) -> Tensor:
    """Action indices `(...)` from logits `(..., A)`: the argmax, or a sample of the softmax.

    Args:
        logits: One for each action.
        decoding: Argmax or sampling, its temperature and top-k.
        uniforms: `(...)` float64 in [0, 1) to sample by, as of `rate.hashing.counter_uniforms`;
            made by PyTorch's generator if None.
    """
    if decoding.method == "argmax":
        return logits.argmax(-1)
    if uniforms is None:
        uniforms = torch.rand(logits.shape[:-1], dtype=torch.float64, device=logits.device)
    candidates = None
    if decoding.top_k is not None and decoding.top_k < logits.shape[-1]:
        logits, candidates = logits.topk(decoding.top_k, dim=-1)  # exactly k, whatever the ties
    cumulative = (logits.double() / decoding.temperature).softmax(-1).cumsum(-1)
    # Inverse transform sampling: the first action whose cumulative probability is above. Rounding
    # must not let a number pass the last one.
    sampled = (cumulative[..., :-1] <= uniforms[..., None] * cumulative[..., -1:]).sum(-1)
    return sampled if candidates is None else candidates.gather(-1, sampled[..., None])[..., 0]


class DiscreteHead(nn.Module):
    """Logits over the `num_actions` whole numbers from `start` on."""

    def __init__(self, d_model: int, num_actions: int, start: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, num_actions, bias=False)
        self.start, self.last = start, num_actions - 1
        self.encoded_size = num_actions

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.linear(hidden)
        return logits

    def loss(self, predictions: Tensor, actions: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of every step: `(B, T, A)` and `(B, T)` to `(B, T)`."""
        flat = F.cross_entropy(
            predictions.flatten(0, -2).float(),
            self.indices(actions).flatten(),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return flat.view(actions.shape)

    def correct(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Whether the most likely action is that of the data, `(B, T)` bool."""
        return predictions.argmax(-1) == self.indices(actions)

    def encode(self, actions: Tensor) -> Tensor:
        """Actions `(B, T)` one-hot, `(B, T, A)` float32."""
        every = torch.arange(self.last + 1, device=actions.device)
        return (self.indices(actions)[..., None] == every).float()

    def decode(
        self, predictions: Tensor, decoding: Decoding, uniforms: Tensor | None = None
    ) -> Tensor:
        """Actions `(...)` of predictions `(..., A)`; `uniforms` `(..., 1)`: see `decode_logits`."""
        index = decode_logits(predictions, decoding, None if uniforms is None else uniforms[..., 0])
        return index + self.start if self.start else index

    def indices(self, actions: Tensor) -> Tensor:
        """Actions counted from 0. Padding, which is 0, need not be one of them."""
        actions = actions.long()
        return (actions - self.start).clamp(0, self.last) if self.start else actions


class MultiDiscreteHead(nn.Module):
    """Independent logits for each of the `C` components of an action of whole numbers.

    Args:
        d_model: Width of the features.
        choices: The values of each component, and the shape of an action.
    """

    def __init__(self, d_model: int, choices: Choices) -> None:
        super().__init__()
        self.sizes, self.shape = choices.sizes, choices.shape
        self.encoded_size = sum(choices.sizes)
        self.parts = nn.ModuleList(
            DiscreteHead(d_model, size, start)
            for size, start in zip(choices.sizes, choices.starts, strict=True)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of all components side by side: `(B, T, sum of sizes)`."""
        return torch.cat([part(hidden) for part in self.parts], dim=-1)

    def loss(self, predictions: Tensor, actions: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Sum of the components' cross-entropies: actions `(B, T, *shape)` to `(B, T)`."""
        losses = [
            part.loss(logits, component, label_smoothing)
            for part, logits, component in self._by_part(predictions, actions)
        ]
        return torch.stack(losses).sum(0)

    def correct(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Whether every component's most likely value is that of the data, `(B, T)` bool."""
        hits = [
            part.correct(logits, component)
            for part, logits, component in self._by_part(predictions, actions)
        ]
        return torch.stack(hits).all(0)

    def encode(self, actions: Tensor) -> Tensor:
        """Actions `(B, T, *shape)`, each component one-hot: `(B, T, sum of sizes)` float32."""
        components = actions.reshape(*actions.shape[:2], len(self.sizes)).unbind(-1)
        heads = cast("list[DiscreteHead]", list(self.parts))
        return torch.cat([h.encode(c) for h, c in zip(heads, components, strict=True)], dim=-1)

    def decode(
        self, predictions: Tensor, decoding: Decoding, uniforms: Tensor | None = None
    ) -> Tensor:
        """Actions `(..., *shape)`; `uniforms` `(..., C)`: see `decode_logits`."""
        heads = cast("list[DiscreteHead]", list(self.parts))
        parts = [
            head.decode(logits, decoding, None if uniforms is None else uniforms[..., i : i + 1])
            for i, (head, logits) in enumerate(
                zip(heads, torch.split(predictions, self.sizes, dim=-1), strict=True)
            )
        ]
        return torch.stack(parts, dim=-1).reshape(*predictions.shape[:-1], *self.shape)

    def _by_part(
        self, predictions: Tensor, actions: Tensor
    ) -> list[tuple[DiscreteHead, Tensor, Tensor]]:
        """Each component's head, logits `(B, T, size)` and actions `(B, T)`."""
        heads = cast("list[DiscreteHead]", list(self.parts))
        logits = torch.split(predictions, self.sizes, dim=-1)
        components = actions.reshape(*predictions.shape[:-1], len(self.sizes)).unbind(-1)
        return list(zip(heads, logits, components, strict=True))


class ContinuousHead(nn.Module):
    """A deterministic action: tanh scaled to the bounds of a `Box`, linear where it has none.

    Every component has a centre and a unit: the middle and half of its range, which are 0 and 1 for
    a range of [-1, 1]; without bounds, the mean and the standard deviation in the data
    (`set_spread`; 0 and 1 until then). Predictions `(..., A)` are in the environment's units and
    flat, whatever the shape of an action.

    Attributes:
        centre: `(A,)`, what a prediction of 0 stands for.
        unit: `(A,)`, above 0.
        bounded: `(A,)` bool, which components have bounds on both sides.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    unit: Tensor
    bounded: Tensor

    def __init__(self, d_model: int, space: gym.spaces.Box) -> None:
        super().__init__()
        self.shape = tuple(space.shape)
        self.encoded_size = math.prod(self.shape)
        self.linear = nn.Linear(d_model, self.encoded_size)
        for name, bound in (("low", space.low), ("high", space.high)):
            flat = torch.tensor(bound, dtype=torch.float32).flatten()
            self.register_buffer(name, flat, persistent=False)
        centre, unit, bounded = box_scale(space)
        self.register_buffer("bounded", bounded, persistent=False)
        # Bounds of the space are not saved with the weights; statistics of the data are.
        self.needs_spread = not bool(bounded.all())
        self.register_buffer("centre", centre, persistent=self.needs_spread)
        self.register_buffer("unit", unit, persistent=self.needs_spread)

    def set_spread(self, mean: Tensor, std: Tensor) -> None:
        """Centre and scale the components without bounds by those of the data, `(A,)` each.

        Raises:
            ValueError: If a mean is not finite, or a deviation is negative or not finite.
        """
        self.centre.copy_(torch.where(self.bounded, self.centre, mean))
        self.unit.copy_(torch.where(self.bounded, self.unit, unit_of(mean, std)))

    def forward(self, hidden: Tensor) -> Tensor:
        raw = self.linear(hidden)
        actions: Tensor = self.centre + self.unit * torch.where(self.bounded, raw.tanh(), raw)
        return actions

    def loss(self, predictions: Tensor, actions: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error over an action's components, each in its unit: to `(B, T)`."""
        errors = (predictions.float() - actions.reshape(predictions.shape).float()) / self.unit
        return errors.square().mean(-1)

    def correct(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Whether every component is within a tenth of its range (two units), `(B, T)` bool."""
        errors = predictions - actions.reshape(predictions.shape)
        return (errors.abs() <= 0.2 * self.unit).all(-1)

    def encode(self, actions: Tensor) -> Tensor:
        """Actions `(B, T, *shape)` or `(B, T, A)` in their units: `(B, T, A)` float32."""
        return (actions.reshape(*actions.shape[:2], -1).float() - self.centre) / self.unit

    def decode(
        self, predictions: Tensor, decoding: Decoding, uniforms: Tensor | None = None
    ) -> Tensor:
        """The prediction `(..., *shape)`, clamped to the bounds: rounding can push it past them.

        Raises:
            ConfigError: If the decoding samples; there is no distribution to sample from.
        """
        if decoding.method != "argmax":
            raise ConfigError(
                f"decoding.method is '{decoding.method}', but continuous actions are predicted, "
                "not sampled; use decoding.method=argmax."
            )
        held = torch.clamp(predictions, self.low, self.high)
        return held.reshape(*predictions.shape[:-1], *self.shape)


ActionHead = DiscreteHead | MultiDiscreteHead | ContinuousHead


def make_head(space: gym.Space[Any], d_model: int) -> ActionHead:
    """The action head of a space.

    Raises:
        ConfigError: If there is no head for the space.
    """
    check_action_space(space)
    choices = choices_of(space)
    if choices is None:
        return ContinuousHead(d_model, cast("gym.spaces.Box", space))
    if not choices.shape:
        return DiscreteHead(d_model, choices.sizes[0], choices.starts[0])
    return MultiDiscreteHead(d_model, choices)
