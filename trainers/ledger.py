"""What optimiser steps came to, kept on the device until the host asks.

To read a number from a GPU is to wait until it has done all that it was told. So the sums of a step
stay there, and come over together when metrics are due. Until then nobody here knows whether a loss
was finite; the device does, and from the first that was not it leaves every weight alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.losses import Totals


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
        totals: Sums over the steps that the host knows of.
        norms: Sum of their gradients' norms.
        steps: How many they are.
        found_inf: `()` float32 on the device: 1 from the first step on that was not finite. Under
            this name a fused optimiser looks for it, and while it is 1 it changes nothing.
    """

    def __init__(self) -> None:
        self.totals, self.norms, self.steps = Totals(), 0.0, 0
        self.found_inf: Tensor | None = None
        self._unread: list[tuple[int, int, Tensor]] = []

    def judge(self, totals: Tensor, norm: Tensor) -> Tensor:
        """See on the device whether an optimiser step went well.

        Args:
            totals: `(6,)` sums, in the order of `Totals`.
            norm: `()` of the gradient.

        Returns:
            `(7,)`, both in a row.
        """
        row = torch.cat((totals, norm.to(totals.dtype)[None]))
        bad = (~torch.isfinite(row).all()).float()
        if self.found_inf is None:
            self.found_inf = torch.zeros_like(bad)
        torch.maximum(self.found_inf, bad, out=self.found_inf)  # a graph knows where it is
        return row

    def add(self, step: int, batch: int, row: Tensor) -> None:
        """Note an optimiser step, without waiting for it.

        Args:
            step: Its number.
            batch: The number of its batch.
            row: What `judge` gave.
        """
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
        for (step, batch, _), (*totals, norm) in zip(unread, rows, strict=True):
            taken = Totals(*totals)
            if not (math.isfinite(taken.mean_loss) and (may_overflow or math.isfinite(norm))):
                return Failure(step, batch, taken.mean_loss, norm)
            self.totals, self.norms, self.steps = (
                self.totals + taken,
                self.norms + norm,
                self.steps + 1,
            )
        return None

    def metrics(self) -> dict[str, float]:
        """Means over the steps that were read, which are then forgotten."""
        found = {**self.totals.metrics(), "grad_norm": self.norms / self.steps}
        self.totals, self.norms, self.steps = Totals(), 0.0, 0
        return found

    def state_dict(self) -> list[float]:
        """The sums as plain numbers."""
        return [*vars(self.totals).values(), self.norms, self.steps]

    def load_state_dict(self, state: list[float]) -> None:
        """Go on from the sums of a checkpoint."""
        *totals, self.norms, steps = state
        self.totals, self.steps = Totals(*totals), int(steps)
