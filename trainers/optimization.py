"""AdamW's parameter groups and the learning rate's schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trainers.config_learning import OptimizerConfig
from trainers.distributed import local

# Layers that multiply by a matrix. All other parameters are scales, offsets or initial values.
_MATRIX_LAYERS = (nn.Linear, _ConvNd, nn.RNNCellBase)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns AdamW's groups: matrices of linear and convolutional layers decay, the rest do not.

    The rest are biases, norms, embeddings, memory tokens, attention's u and v, and the gates'
    biases: shrinking them towards zero regularises nothing.
    """
    decayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _MATRIX_LAYERS)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def learning_rate_factor(step: int, config: OptimizerConfig, max_steps: int) -> float:
    """Returns the learning rate of optimiser step `step`, counted from 0, relative to the peak.

    It rises linearly over the warm-up steps, then falls to `final_fraction` at `max_steps` and
    stays there.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
    progress = min(progress, 1.0)
    left = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_fraction + (1 - config.final_fraction) * left


class AdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019) whose steps may be taken by a CUDA graph.

    A graph replays host values as they were recorded, so it reads the learning rate, one for all
    parameters, from a tensor on the device. Elsewhere, also in checkpoints, it is a number.

    Attributes:
        is_taken: Whether a graph has already taken the step of the next call of `step`.
        found_inf: `()` on the device or None; while it is 1, a fused step makes no update.
    """

    is_taken = False
    found_inf: Tensor | None = None
    _rate: Tensor | None = None

    @property
    def learning_rate(self) -> float:
        """Returns the learning rate of the next step."""
        return float(self.param_groups[0]["lr"])

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step, unless a graph has taken it; calls the closure in both cases."""
        if not self.is_taken:
            super().step(closure)
        elif closure is not None:
            closure()
        self.is_taken = False

    def update(self) -> None:
        """Take a step before the call of `step` that counts it."""
        super().step()

    def update_at_rate(self) -> None:
        """Take a step as `update`, with the learning rate that `write_rate` has written."""
        learning_rate = self.learning_rate
        if self._rate is None:
            self.write_rate()
        # PyTorch warns of capturable groups outside of a recording.
        is_recorded = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        self._set(lr=self._rate, capturable=is_recorded)
        try:
            self.update()
        finally:
            self._set(lr=learning_rate, capturable=False)

    def write_rate(self) -> None:
        """Write the learning rate to the device."""
        if self._rate is None:
            self._rate = torch.zeros((), device=self.param_groups[0]["params"][0].device)
        self._rate.fill_(self.learning_rate)

    def changed_tensors(self) -> list[Tensor]:
        """Returns the tensors that a step changes: weights and moments."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        return weights + [known for state in self.state.values() for known in state.values()]

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> Any:
        """Collects the tensors of a group; of sharded ones the parts of this process.

        AdamW acts on each element by itself, and its kernel takes no mixture of sharded tensors
        and others.
        """
        result = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = local(tensors)
        return result

    def _set(self, **settings: Any) -> None:
        for group in self.param_groups:
            group.update(settings)


def make_optimizer(
    model: nn.Module, config: OptimizerConfig, max_steps: int, *, fused: bool
) -> tuple[AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Returns AdamW and its learning rate schedule, which are stepped together.

    Args:
        model: The module with the parameters.
        config: The settings.
        max_steps: Optimiser steps of the whole run.
        fused: Use one kernel for all parameters; not with float16, whose gradients are scaled.
    """
    optimizer = AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.beta_1, config.beta_2),
        fused=fused,
    )
    # The scheduler does not save a lambda, so checkpoints contain plain types only.
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, config, max_steps)
    )
    return optimizer, scheduler
