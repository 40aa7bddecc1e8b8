"""Faster ways to compute what a layer computes, on a CPU; tests hold each to the plain layer.

They apply unless the environment variable `RATE_KERNELS` is `off`. The gain is the time of a
training step (forward and backward) on one thread without the kernel, divided by that with it:
median and quartiles of alternating blocks.

| kernel        | layer                  | model                             | gain               |
|---------------|------------------------|-----------------------------------|--------------------|
| cpu_attention | `rate.nn.attention`    | DTXL, 90 steps (T-Maze)           | 2.64 [2.34, 2.85]  |
|               |                        | DT with relative positions, same  | 2.58 [2.41, 2.71]  |
|               |                        | DTXL, 60 steps (Minigrid)         | 1.92 [1.64, 1.98]  |
|               |                        | DTXL, 60 steps (any data)         | 1.66 [1.54, 1.95]  |
|               |                        | DTXL, 90 steps (ViZDoom)          | 1.34 [1.18, 1.39]  |
|               |                        | RATE, 50 steps (T-Maze, paper)    | 1.29 [1.26, 1.35]  |
|               |                        | RATE, 10 to 30 steps (presets)    | 0.95 to 1.04       |
| cpu_dropout   | `torch.nn.Dropout`     | DT, dropout 0.1 (MuJoCo)          | 1.17 [1.14, 1.31]  |
|               |                        | DT, dropout 0.1 (MuJoCo, paper)   | 1.11 [1.09, 1.16]  |

The kernels draw other dropout masks than PyTorch, so that training with dropout has other numbers
without them.
"""

from __future__ import annotations

import os

from torch import Tensor

_ENABLED = os.environ.get("RATE_KERNELS", "on") != "off"


def apply_to(x: Tensor) -> bool:
    """Whether kernels may compute on a tensor: it is on a CPU, and they are not turned off."""
    return _ENABLED and x.device.type == "cpu"
