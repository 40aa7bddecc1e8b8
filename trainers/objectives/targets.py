"""Targets of bootstrapped values, and the networks that they come from.

Features of a step depend on the whole history up to it, and a row of a batch is one episode. The
value of the step after is therefore one column further in the same pass over the segments, with
memory carried.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.batch import Batch
from rate.model import SequenceModel

_LINEAR = 0.01  # epsilon of the value scale of R2D2 (Kapturowski et al. 2019, section 2.3)


def has_next(batch: Batch) -> Tensor:
    """Returns the steps whose following observation is in the window, `(B, T)` bool.

    No terminated step has one, since the return after it is 0.
    """
    observed = F.pad(batch.observed[:, 1:], (0, 1))
    return observed & batch.mask & ~batch.terminated


def has_target(batch: Batch) -> Tensor:
    """Returns the steps that have a target, `(B, T)` bool.

    The others are the last of a window that is cut in the middle of an episode, or of a truncated
    episode whose last observation is not in the data or has no room in the window.
    """
    return has_next(batch) | (batch.terminated & batch.mask)


def n_step_targets(batch: Batch, values: Tensor, discount: float, n_step: int) -> Tensor:
    """Returns the targets of values, `(B, T)`: discounted sums of rewards and a later value.

    `G_t = r_t + γ r_{t+1} + ... + γ^(n-1) r_{t+n-1} + γ^n V_{t+n}`, without the terms after a
    terminated step. Where the window has fewer than n further steps, it bootstraps at the last of
    them (Sutton and Barto 2018, section 7.1).

    Args:
        batch: The steps.
        values: `(B, T)`, the value of each step's observation.
        discount: γ.
        n_step: n.
    """
    goals, follows = values, has_next(batch)
    for _ in range(n_step):
        later = batch.rewards + discount * F.pad(goals[:, 1:], (0, 1))
        goals = torch.where(batch.terminated, batch.rewards, torch.where(follows, later, values))
    return goals


def rescaled(values: Tensor) -> Tensor:
    """Returns values on R2D2's scale: `h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.01 x`."""
    return values.sign() * ((values.abs() + 1).sqrt() - 1) + _LINEAR * values


def unscaled(values: Tensor) -> Tensor:
    """Returns the inverse of `rescaled` (Pohlen et al. 2018, proposition A.2)."""
    root = (1 + 4 * _LINEAR * (values.abs() + 1 + _LINEAR)).sqrt()
    return values.sign() * (((root - 1) / (2 * _LINEAR)).square() - 1)


class TargetNetwork(nn.Module):
    """Copies of the model and of an objective's heads, which follow them slowly.

    They are part of the training state. Dropout and noise are off.

    Args:
        model: The model.
        heads: The heads.
    """

    def __init__(self, model: SequenceModel, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.model, self.heads = copy.deepcopy(model), copy.deepcopy(heads)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TargetNetwork:
        """Stays in evaluation mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """Returns the features of every step, `(B, T, d)`."""
        return self.model.features(batch)[0]

    @torch.no_grad()
    def follow(self, model: SequenceModel, heads: nn.ModuleDict, rate: float) -> None:
        """Moves every weight towards its original by the share `rate`."""
        slow: list[Tensor] = [*self.model.parameters(), *self.heads.parameters()]
        fast: list[Tensor] = [*model.parameters(), *heads.parameters()]
        torch._foreach_lerp_(slow, fast, rate)

    @torch.no_grad()
    def equal(self, model: SequenceModel, heads: nn.ModuleDict) -> None:
        """Takes all weights and the scales of the data."""
        self.model.load_state_dict(model.state_dict())
        self.heads.load_state_dict(heads.state_dict())
