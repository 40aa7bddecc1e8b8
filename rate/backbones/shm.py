"""SHM: a matrix that is calibrated element by element at every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rate.backbones.cell_settings import SHMConfig
from rate.backbones.recurrent_layers import Cell, RecurrentLayers
from rate.nn.scan import linear_scan
from rate.state import State

_SMALL = 1e-5


@dataclass(frozen=True)
class SHMState(State):
    """The state after the last step.

    Attributes:
        memory: `(B, m, m)`, M.
        steps: `(B,)` int64, steps so far.
    """

    memory: Tensor
    steps: Tensor


class SHMCell(Cell[SHMState]):
    """Stable Hadamard Memory (Le et al. 2025, arXiv 2410.10132).

        M_t = M_{t-1} * C_t + eta_t v_t k_t^T
        C_t = 1 + tanh(theta_t v_c(x_t)^T)
        y_t = M_t q_t

    with eta_t = sigmoid(w x_t), and k_t and q_t non-negative with sum 1. theta_t is one of L
    learned vectors, drawn uniformly at every step, which keeps products of C_t bounded in
    expectation. The public code draws when it acts, too; here steps then take the
    vectors in turn, so that a policy is a function of its history. Computed by a scan over steps.
    """

    def __init__(self, config: SHMConfig) -> None:
        super().__init__(config)
        width, self.size = config.d_model, config.memory_size
        self.input = nn.Linear(width, 4 * self.size + 1)  # v, v_c, k, q, eta
        self.theta = nn.Parameter(torch.randn(config.calibrations, self.size) / self.size**0.5)
        self.output = nn.Linear(self.size, width)

    def initial_state(self, batch_size: int) -> SHMState:
        """Zeros."""
        memory = self.theta.new_zeros(batch_size, self.size, self.size)
        return SHMState(memory, torch.zeros(batch_size, dtype=torch.int64, device=memory.device))

    def forward(self, x: Tensor, mask: Tensor, state: SHMState) -> tuple[Tensor, SHMState]:
        """See `Cell`."""
        real = mask[:, :, None, None]  # (B, T, 1, 1)
        value, calibration, key, query, eta = self.input(x).split((*[self.size] * 4, 1), dim=-1)
        theta = self.theta[self._rows(mask, state.steps)]  # (B, T, m)
        change = torch.tanh(theta[..., :, None] * calibration[..., None, :]) * real  # C - 1
        written = torch.sigmoid(eta) * value  # (B, T, m)
        update = written[..., :, None] * _share(key)[..., None, :] * real  # (B, T, m, m)
        memory = linear_scan(1 + change, update, state.memory)
        out = (memory @ _share(query)[..., None])[..., 0]  # (B, T, m)
        return self.output(out), SHMState(memory[:, -1], state.steps + mask.sum(1))

    def _rows(self, mask: Tensor, steps: Tensor) -> Tensor:
        """Returns which theta every step takes, `(B, T)` int64."""
        count = len(self.theta)
        if self.training:
            return torch.randint(count, mask.shape, device=mask.device)
        return (steps[:, None] + torch.arange(mask.shape[1], device=mask.device)) % count


def _share(x: Tensor) -> Tensor:
    """ReLU, divided by its sum."""
    positive = torch.relu(x)
    return positive / (positive.sum(-1, keepdim=True) + _SMALL)


class SHM(RecurrentLayers[SHMState]):
    """Layers of `SHMCell`."""

    Config = SHMConfig
    make_cell = SHMCell
