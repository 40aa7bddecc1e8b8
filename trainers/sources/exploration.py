"""Exploration: the actions that are taken, given a head's predictions.

Every random number is a function of the episode and the step, so that a resumed run takes the same
actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rate.config import Decoding
from rate.hashing import Words, counter_uniforms
from rate.heads import ActionHead, ContinuousHead, DiscreteHead
from trainers.config_learning import ObjectiveConfig
from trainers.config_online import Exploring, OnlineConfig

_GREEDY = Decoding()


def exploration_of(online: OnlineConfig, loss: ObjectiveConfig, head: ActionHead) -> Exploring:
    """Returns the kind of exploration of a run: the settings', or the rule's own."""
    if online.exploration is not None:
        return online.exploration
    if isinstance(head, ContinuousHead):
        return "gaussian"
    return "epsilon" if loss.acts_by_values else "softmax"


@dataclass(frozen=True)
class Exploration:
    """Chooses actions.

    Attributes:
        kind: How.
        settings: Temperature and noise.
        head: The head, which decodes predictions.
    """

    kind: Exploring
    settings: OnlineConfig
    head: ActionHead

    def actions(self, predictions: Tensor, keys: Words, steps: Tensor, epsilon: float) -> Tensor:
        """Returns the actions `(B, ...)`.

        Args:
            predictions: `(B, ...)` of the head.
            keys: `(B,)`, hashes of the episodes.
            steps: `(B,)` int64 on the host, the steps within them.
            epsilon: The share of random actions, of `epsilon`.
        """
        parts = self._numbers(predictions)
        numbers = torch.from_numpy(counter_uniforms(keys, steps.numpy(), parts))
        uniforms = numbers.to(predictions.device, non_blocking=True)  # (B, parts)
        head = self.head
        if self.kind == "softmax":
            method = Decoding(method="sample", temperature=self.settings.temperature)
            return head.decode(predictions, method, uniforms)
        if isinstance(head, ContinuousHead):
            return head.decode(predictions + self._noise(head, uniforms), _GREEDY)
        best = head.decode(predictions, _GREEDY)
        first = getattr(head, "start", 0)
        drawn = first + (uniforms[:, 1] * predictions.shape[-1]).long()
        return torch.where(uniforms[:, 0] < epsilon, drawn, best)

    def log_probabilities(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Returns the log-probabilities `(B,)` of samples of the head's distribution."""
        return -self.head.loss(predictions[:, None], actions[:, None])[:, 0]

    def _numbers(self, predictions: Tensor) -> int:
        """Returns how many random numbers an action takes."""
        if isinstance(self.head, ContinuousHead):
            return 2 * predictions.shape[-1]
        if self.kind == "softmax" and not isinstance(self.head, DiscreteHead):
            return len(self.head.sizes)
        return 2

    def _noise(self, head: ContinuousHead, uniforms: Tensor) -> Tensor:
        """Returns Gaussian noise `(B, A)` in the units of the environment (Box and Muller 1958)."""
        first, second = uniforms.chunk(2, dim=-1)
        normal = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()
        return self.settings.noise * head.unit * normal.float()


def check_exploration(kind: Exploring, head: ActionHead) -> str:
    """Returns why a head cannot be explored in this way, with the remedy; empty if it can."""
    continuous = isinstance(head, ContinuousHead)
    if continuous and kind != "gaussian":
        return (
            f"online.exploration={kind} is of discrete actions, and those of the environment are "
            "continuous. Set online.exploration=gaussian, or leave it out."
        )
    if not continuous and kind == "gaussian":
        return (
            "online.exploration=gaussian is of continuous actions, and those of the environment "
            "are discrete. Set it to epsilon or softmax, or leave it out."
        )
    if kind == "epsilon" and not isinstance(head, DiscreteHead):
        return (
            "online.exploration=epsilon is of a single discrete action, and those of the "
            "environment have several components. Set online.exploration=softmax."
        )
    return ""
