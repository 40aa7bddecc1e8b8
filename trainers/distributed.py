"""Collective operations of data-parallel training: sums over the processes (all-reduce)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

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


def is_part(value: Any) -> bool:
    """Whether a value is a sharded tensor (`DTensor`), of which each process has a part."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors with this process's parts of sharded ones, which share their memory."""
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes, in one all-reduce.

    Parameters that no process has used keep no gradient, so that the optimiser leaves them alone
    as it does in a single process. Sharded gradients are sums already.
    """
    if not is_distributed():
        return
    gradients = [p.grad for p in parameters if p.grad is not None and not is_part(p.grad)]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Clip the gradient to a norm of `limit`; returns its norm before, `()`."""
    if not any(map(is_part, parameters)):
        norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, limit)
        return norm
    gradients = [p.grad for p in parameters if p.grad is not None]
    sharded = [gradient for gradient in gradients if is_part(gradient)]
    others = [gradient for gradient in gradients if not is_part(gradient)]
    squares = _sum_of_squares(local(sharded), gradients[0].device)
    dist.all_reduce(squares)
    norm = (squares + _sum_of_squares(others, squares.device)).sqrt()
    if limit < math.inf:  # as `clip_grad_norm_`, which takes no mixture of the two
        torch._foreach_mul_(local(gradients), (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _sum_of_squares(tensors: list[Tensor], device: torch.device) -> Tensor:
    """Returns the sum of the squares of all elements, `()`."""
    parts = [tensor for tensor in tensors if tensor.numel()]
    if not parts:
        return torch.zeros((), device=device)
    return torch.stack(torch._foreach_norm(parts)).square().sum()
