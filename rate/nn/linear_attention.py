"""Recurrences of matrices, computed in chunks: products of matrices within, a state between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from rate.state import State

S = TypeVar("S", bound=State)
# Of the norm of what is read. It is small at the first steps of an episode, when little is written;
# a smaller epsilon would enlarge rounding errors by more than 100.
READ_EPS = 1e-3
CHUNK = 64  # steps; the work within a chunk grows with the square of its length


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Returns `(..., H d)` as `(..., H, d)`."""
    return x.reshape(*x.shape[:-1], heads, -1)


def in_chunks(
    function: Callable[..., tuple[Tensor, S]], inputs: tuple[Tensor, ...], state: S
) -> tuple[Tensor, S]:
    """Applies a function of a chunk and a state to T steps of all heads.

    Args:
        function: Takes inputs `(B, H, C, ...)` of C <= `CHUNK` steps and the state before them, and
            returns outputs `(B, H, C, ...)` and the state after them.
        inputs: `(B, T, H, ...)` each.
        state: The state before the first step.

    Returns:
        Outputs `(B, T, H, ...)`, and the state after the last step.
    """
    outputs = []
    for parts in zip(*(torch.split(tensor, CHUNK, dim=1) for tensor in inputs), strict=True):
        output, state = function(*(part.transpose(1, 2) for part in parts), state)
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1), state


def decay_between(log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the decay from the start of a chunk, and between its steps.

    Args:
        log_decay: `(B, H, C)`, log a_t.

    Returns:
        log of a_1 ... a_t, `(B, H, C)`, and a_{s+1} ... a_t for s <= t, else 0, `(B, H, C, C)`.
    """
    total = log_decay.cumsum(-1)
    difference = total[..., :, None] - total[..., None, :]
    causal = torch.ones(difference.shape[-2:], dtype=torch.bool, device=total.device).tril()
    return total, difference.masked_fill(~causal, -torch.inf).exp()


def decayed_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """One chunk of M_t = a_t M_{t-1} + k_t v_t^T, o_t = M_t^T q_t.

    Linear attention with decay (Katharopoulos et al. 2020; Dao and Gu 2024).

    Args:
        query: `(B, H, C, k)`.
        key: `(B, H, C, k)`.
        value: `(B, H, C, v)`.
        log_decay: `(B, H, C)`, log a_t <= 0.
        memory: `(B, H, k, v)`, M before the chunk.

    Returns:
        o `(B, H, C, v)`, and M `(B, H, k, v)` after the chunk.
    """
    total, between = decay_between(log_decay)
    start = total.exp()[..., None]  # (B, H, C, 1)
    output = start * (query @ memory) + (query @ key.mT * between) @ value
    to_end = between[..., -1, :, None]  # (B, H, C, 1)
    memory = start[..., -1:, :] * memory + (key * to_end).mT @ value
    return output, memory
