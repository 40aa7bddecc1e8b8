"""Value networks on the features of a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Returns a network with two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


class StateValue(nn.Module):
    """The value of a state: features `(..., d)` to `(...)`."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.net = mlp(features, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        values: Tensor = self.net(features).float()
        return values[..., 0]


class TwinCritic(nn.Module):
    """Two value networks, whose minimum counters overestimation (Fujimoto et al. 2018).

    Args:
        features: d.
        actions: A, the inputs that encode an action; 0 values `outputs` actions at once.
        width: Of the hidden layers.
        outputs: Values per input.
    """

    def __init__(self, features: int, actions: int, width: int, outputs: int = 1) -> None:
        super().__init__()
        self.at_once = actions == 0
        self.nets = nn.ModuleList(mlp(features + actions, width, outputs) for _ in range(2))

    def forward(self, features: Tensor, actions: Tensor | None = None) -> Tensor:
        """Returns values of both networks, `(2, ...)`, or `(2, ..., outputs)` without `actions`.

        Args:
            features: `(..., d)`.
            actions: `(..., A)`, as `encode` of the action head gives them; one-hot ones choose
                among the values of all.
        """
        if actions is None or self.at_once:
            values = torch.stack([net(features).float() for net in self.nets])
            return values if actions is None else (values * actions).sum(-1)
        both = torch.cat((features, actions.to(features.dtype)), dim=-1)
        return torch.stack([net(both).float()[..., 0] for net in self.nets])


def frozen(module: nn.Module) -> Callable[..., Tensor]:
    """Returns a module as a function whose gradient does not reach its weights."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def call(*inputs: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(module, weights, inputs)
        return found

    return call
