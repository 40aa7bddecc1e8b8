"""Copies of arrays on a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datamodules.episodes import Array

_PIECE = 64 * 2**20  # bytes that are copied from a file to a device at once


def load(array: Array, device: torch.device) -> Tensor:
    """Copies an array to a device piece by piece, in bounded host memory."""
    rows = max(1, _PIECE * len(array) // max(1, array.nbytes))
    like = torch.from_numpy(np.empty(0, array.dtype))
    out = like.new_empty(array.shape, device=device)
    for start in range(0, len(array), rows):
        piece = np.array(array[start : start + rows])  # a copy, as the memory map is read-only
        out[start : start + rows] = torch.from_numpy(piece)
    return out


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host on a device; the host does not wait for the copy."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
