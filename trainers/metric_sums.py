"""Sums of metrics over optimiser steps, and the check that each step is finite.

Reading a number from a GPU waits until the GPU has finished all queued work. So the sums of each
step stay on the device, and are transferred together when metrics are logged. The check for
finite losses and gradients also runs on the device: from the first step that fails it, the fused
optimiser changes no weight. The host learns of it at the next transfer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rate.renamed import current_metrics

LOSS = "loss"


@dataclass(frozen=True)
class Failure:
    """The first optimiser step whose loss or gradient was not finite.

    Attributes:
        step: Its number, counted from 1.
        batch: The number of its batch in the data, counted from 0.
        loss: The mean loss.
        norm: The norm of the gradient.
    """

    step: int
    batch: int
    loss: float
    norm: float


class MetricSums:
    """Running sums of metrics since they were last logged.

    Attributes:
        sums: The sum and the weight of each metric over the steps that were read, by name; the loss
            is one of them.
        norms: The sum of the gradient norms of these steps.
        steps: The number of these steps.
        found_inf: `()` float32 on the device: 1 from the first step on that was not finite. A fused
            optimiser looks for this name, and makes no update while it is 1.
    """

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}
        self.norms, self.steps = 0.0, 0
        self.found_inf: Tensor | None = None
        self._unread: list[tuple[int, int, Tensor]] = []
        self._names: tuple[str, ...] = ()

    def check_finite(self, totals: Tensor, norm: Tensor) -> Tensor:
        """Set `found_inf` if the loss or the gradient of a step is not finite, on the device.

        Args:
            totals: `(2 M + 1,)`: sum and weight of the loss and of each metric, then anything that
                is not a metric.
            norm: `()`, the norm of the gradient.

        Returns:
            `(2 M + 2,)`, both concatenated.
        """
        row = torch.cat((totals, norm.to(totals.dtype)[None]))
        bad = (~torch.isfinite(torch.cat((row[:2], row[-1:]))).all()).float()
        if self.found_inf is None:
            self.found_inf = torch.zeros_like(bad)
        torch.maximum(self.found_inf, bad, out=self.found_inf)  # in place, for CUDA graphs
        return row

    def add(self, step: int, batch: int, row: Tensor, names: tuple[str, ...]) -> None:
        """Add an optimiser step without a transfer from the device.

        Args:
            step: Its number.
            batch: The number of its batch.
            row: The result of `check_finite`.
            names: The names of the metrics in the row, in their order: the same at each step.
        """
        self._names = names
        self._unread.append((step, batch, row))

    def read(self, *, may_overflow: bool = False) -> Failure | None:
        """Transfer the rows of all steps added since the last call. Waits for the device.

        Args:
            may_overflow: Accept gradients that are not finite: the gradient scaler of float16 skips
                such steps and lowers its scale.

        Returns:
            The first step that failed, if there is one.
        """
        if not self._unread:
            return None
        unread, self._unread = self._unread, []
        rows = torch.stack([row for *_, row in unread]).cpu().tolist()  # the one transfer
        for (step, batch, _), row in zip(unread, rows, strict=True):
            loss, norm = _mean(*row[:2]), row[-1]
            if not (math.isfinite(loss) and (may_overflow or math.isfinite(norm))):
                return Failure(step, batch, loss, norm)
            for index, name in enumerate(self._names):
                total, weight = self.sums.get(name, (0.0, 0.0))
                self.sums[name] = total + row[2 * index], weight + row[2 * index + 1]
            self.norms, self.steps = self.norms + norm, self.steps + 1
        return None

    def metrics(self) -> dict[str, float]:
        """Returns the means over the steps that were read, and resets the sums.

        Metrics with weight 0 are left out, except the loss.
        """
        found = {
            name: _mean(*known) for name, known in self.sums.items() if known[1] or name == LOSS
        }
        found["grad_norm"] = self.norms / self.steps
        self.sums, self.norms, self.steps = {}, 0.0, 0
        return found

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums as plain types."""
        return {"sums": dict(self.sums), "norms": self.norms, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums of a checkpoint."""
        sums = current_metrics(state["sums"])
        self.sums = {name: (total, weight) for name, (total, weight) in sums.items()}
        self.norms, self.steps = state["norms"], state["steps"]


def _mean(total: float, weight: float) -> float:
    return total / weight if weight else total
