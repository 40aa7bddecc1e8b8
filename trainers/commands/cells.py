"""Cells of tables: statistics of scores over training seeds, as text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from trainers.statistics import Estimate, Scores, Statistic, estimate, iqm

Summary = Callable[[Sequence[float]], str]


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation over seeds, `0.98 ± 0.01`; of one seed only the mean."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def iqm_and_interval(values: Sequence[float]) -> str:
    """Returns interquartile mean and interval, `0.98 [0.95, 1.00]`; of one seed only its value."""
    return summary(Scores([values]), iqm) if values else "–"


def summary(scores: Scores, statistic: Statistic) -> str:
    """Returns a statistic of tasks and its bootstrap interval; without one if no task has seeds."""
    return shown(estimate(scores, statistic), max(scores.seeds))


def shown(found: Estimate, seeds: int, sign: str = "") -> str:
    """Returns an estimate as text, `0.98 [0.95, 1.00]`; of one seed only the value.

    Args:
        found: The estimate.
        seeds: How many seeds it is of.
        sign: `+` to show the sign of positive numbers.
    """
    value = f"{found.value:{sign}.2f}"
    return value if seeds == 1 else f"{value} [{found.low:{sign}.2f}, {found.high:{sign}.2f}]"


# The cell, and what it shows beside the statistic.
SUMMARIES: dict[str, tuple[Summary, str]] = {
    "mean": (mean_and_spread, "mean ± sample standard deviation over training seeds"),
    "iqm": (
        iqm_and_interval,
        "interquartile mean over training seeds, with its 95 % bootstrap interval",
    ),
}
