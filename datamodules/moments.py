"""Mean and standard deviation of a stream of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.episodes import Array


@dataclass
class Moments:
    """Mean and variance of a stream of `(T, D)` rows (Chan, Golub and LeVeque, 1979)."""

    count: int = 0
    mean: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    squares: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def update(self, rows: Array) -> None:
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0)
        self.merge(len(rows), mean, ((rows - mean) ** 2).sum(axis=0))

    def merge(self, count: int, mean: Array, squares: Array) -> None:
        """Adds rows of which count, mean and sum of squared differences from it are known."""
        difference = mean - self.mean
        total = self.count + count
        self.squares = self.squares + squares + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def state(self) -> dict[str, Any]:
        """Returns the state as JSON types, from which `Moments(**state)` continues exactly."""
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "squares": self.squares.tolist(),
        }

    def __post_init__(self) -> None:
        self.mean, self.squares = np.array(self.mean), np.array(self.squares)

    def to_dict(self) -> dict[str, list[float]]:
        std = np.sqrt(self.squares / max(self.count, 1))
        return {"mean": self.mean.tolist(), "std": std.tolist()}
