"""What optimiser steps came to, kept on the device until the host asks.

To read a number from a GPU is to wait until it has done all that it was told. So the sums of a step
stay there, and come over together when metrics are due. Until then nobody here knows whether a loss
was finite; the device does, and from the first that was not it leaves every weight alone.
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
        batch: The batch of the data that it was taken on, counted from 0.
        loss: The mean loss.
        norm: The norm of the gradient.
    """

    step: int
    batch: int
    loss: float
    norm: float


class Ledger:
    """The running sums since metrics were last logged.

    Attributes:
        sums: By the name of a metric its sum and weight over the steps that the host knows of; the
            loss is one of them.
        norms: Sum of these steps' gradients' norms.
        steps: How many they are.
        found_inf: `()` float32 on the device: 1 from the first step on that was not finite. Under
            this name a fused optimiser looks for it, and while it is 1 it changes nothing.
    """

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}
        self.norms, self.steps = 0.0, 0
        self.found_inf: Tensor | None = None
        self._unread: list[tuple[int, int, Tensor]] = []
        self._names: tuple[str, ...] = ()

    def judge(self, totals: Tensor, norm: Tensor) -> Tensor:
        """See on the device whether an optimiser step went well.

        Args:
            totals: `(2 M + 1,)`: sum and weight of the loss, those of each metric, and whatever
                is not for metrics.
            norm: `()` of the gradient.

        Returns:
            `(2 M + 2,)`, both in a row.
        """
        row = torch.cat((totals, norm.to(totals.dtype)[None]))
        bad = (~torch.isfinite(torch.cat((row[:2], row[-1:]))).all()).float()
        if self.found_inf is None:
            self.found_inf = torch.zeros_like(bad)
        torch.maximum(self.found_inf, bad, out=self.found_inf)  # a graph knows where it is
        return row

    def add(self, step: int, batch: int, row: Tensor, names: tuple[str, ...]) -> None:
        """Note an optimiser step, without waiting for it.

        Args:
            step: Its number.
            batch: The number of its batch.
            row: What `judge` gave.
            names: The names of the sums and weights that it begins with: the same at each step.
        """
        self._names = names
        self._unread.append((step, batch, row))

    def read(self, *, may_overflow: bool = False) -> Failure | None:
        """Wait for the device, and take in what it has done.

        Args:
            may_overflow: Whether gradients that are not finite are in order: float16's scaler
                skips their step and scales less.

        Returns:
            The first step that failed, if one did.
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
        """Means over the steps that were read, which are then forgotten.

        What has nothing to be a mean of is left out.
        """
        found = {
            name: _mean(*known) for name, known in self.sums.items() if known[1] or name == LOSS
        }
        found["grad_norm"] = self.norms / self.steps
        self.sums, self.norms, self.steps = {}, 0.0, 0
        return found

    def state_dict(self) -> dict[str, Any]:
        """The sums as plain types."""
        return {"sums": dict(self.sums), "norms": self.norms, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the sums of a checkpoint."""
        sums = current_metrics(state["sums"])
        self.sums = {name: (total, weight) for name, (total, weight) in sums.items()}
        self.norms, self.steps = state["norms"], state["steps"]


def _mean(total: float, weight: float) -> float:
    return total / weight if weight else total
