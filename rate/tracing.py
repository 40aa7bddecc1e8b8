"""Whether `torch.export` traces the code that asks."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """Whether a graph is made of what runs now: its values cannot decide what is done.

    False before PyTorch 2.7, with which nothing is exported.
    """
    asked = getattr(torch.compiler, "is_exporting", None)
    return asked is not None and bool(asked())
