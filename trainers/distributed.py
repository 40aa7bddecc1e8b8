"""Collective operations of data-parallel training: sums over the processes (all-reduce)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_distributed() -> bool:
    """Whether the run has more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Returns the sum of `values` over the processes, in place (all-reduce)."""
    if is_distributed():
        dist.all_reduce(values)
    return values


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes, in one all-reduce.

    Parameters that no process has used keep no gradient, so that the optimiser leaves them alone
    as it does in a single process.
    """
    if not is_distributed():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
