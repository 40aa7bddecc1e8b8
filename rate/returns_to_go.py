"""The return-to-go that a model is given at each step of a rollout.

Where rewards arrive all the time, the return-to-go of a rollout that is longer than the episodes of
the data leaves the range of the data, and the model is asked for what it never saw. The modes other
than `decrease` keep it inside.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from rate.config import ReturnToGo


class ReturnsToGo:
    """The returns-to-go of the rows of a batch, each in an episode of its own.

    With target G, rewards r, and segments of K steps, a row is given at step t

        decrease       R_t = G - (r_0 + ... + r_{t-1})                (Chen et al. 2021, section 3)
        hold           R_t = G
        clamp          R_t = min(max(G - (r_0 + ... + r_{t-1}), low), high)
        per_segment    R_t = G - (r_s + ... + r_{t-1}),  s = K floor(t / K)

    where low and high are the range of the training data. `per_segment` starts from the target
    again at each segment (RATE on MuJoCo; Cherepanov et al. 2023).

    Args:
        rows: The number `B` of rows.
        target: G, in units of the reward.
        mode: One of the above.
        segment: K.
        trained_range: Minimum and maximum return-to-go of the training data, for `clamp`.

    Raises:
        ValueError: If the target is not finite, the mode is unknown, or `clamp` has no range.
    """

    def __init__(
        self,
        rows: int,
        target: float,
        mode: ReturnToGo = "decrease",
        *,
        segment: int = 1,
        trained_range: tuple[float, float] | None = None,
    ) -> None:
        if not math.isfinite(target):
            raise ValueError(f"target_return is {target}; it must be a finite number")
        if mode not in get_args(ReturnToGo):
            raise ValueError(
                f"return_to_go is {mode!r}; choose one of: {', '.join(get_args(ReturnToGo))}"
            )
        if mode == "clamp" and trained_range is None:
            raise ValueError(
                "return_to_go=clamp needs trained_range, the minimum and maximum return-to-go of "
                "the training data; choose hold if it is unknown"
            )
        self.target, self.mode, self.segment = target, mode, segment
        self.limits = trained_range if mode == "clamp" else None
        # On the host, where they change: a GPU is no faster for a few numbers.
        # In float64, as for the data: sums of many small rewards must not drift.
        self._left = torch.full((rows, 1), target, dtype=torch.float64)

    @property
    def values(self) -> Tensor:
        """What the model is given, `(B, 1)` float64 on the host."""
        return self._left if self.limits is None else self._left.clamp(*self.limits)

    @property
    def uses_rewards(self) -> bool:
        """Whether `subtract` changes the values."""
        return self.mode != "hold"

    def reset(self, rows: Tensor) -> None:
        """Starts from the target in the rows `(B,)` bool that are True."""
        self._left[rows] = self.target

    def subtract(self, rewards: Tensor, timesteps: Tensor) -> None:
        """Takes the rewards of the last actions into account.

        Args:
            rewards: `(B,)` float64.
            timesteps: `(B,)` int64, the step to come; at 0 there is no last action.
        """
        if not self.uses_rewards:
            return
        self._left -= torch.where(timesteps > 0, rewards, 0.0)[:, None]
        if self.mode == "per_segment":
            self.reset(timesteps % self.segment == 0)
