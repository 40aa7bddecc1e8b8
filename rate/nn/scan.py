"""First-order linear recurrences by a parallel scan."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_scan(decay: Tensor, value: Tensor, initial: Tensor) -> Tensor:
    """Returns all h_t = a_t h_{t-1} + b_t, in log2(T) passes over all steps.

    A pass combines every step with the one 1, 2, 4, ... steps before it (Hillis and Steele 1986;
    Blelloch 1990): two steps of the recurrence are one with a = a_2 a_1 and
    b = a_2 b_1 + b_2.

    Args:
        decay: a, `(B, T, ...)`, real or complex.
        value: b, `(B, T, ...)`.
        initial: h_0, `(B, ...)`.

    Returns:
        `(B, T, ...)`.
    """
    first = value[:, :1] + decay[:, :1] * initial[:, None]
    hidden, shift = torch.cat((first, value[:, 1:]), dim=1), 1
    while shift < hidden.shape[1]:
        combined = hidden[:, shift:] + decay[:, shift:] * hidden[:, :-shift]
        hidden = torch.cat((hidden[:, :shift], combined), dim=1)
        decay = torch.cat((decay[:, :shift], decay[:, shift:] * decay[:, :-shift]), dim=1)
        shift *= 2
    return hidden
