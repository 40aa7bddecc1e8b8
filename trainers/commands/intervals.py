"""Statistics of scores over training seeds, and their uncertainty."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

_CUT = 0.25  # of the values, at each end
_CONFIDENCE = 0.95
_RESAMPLES = 10_000

Summary = Callable[[Sequence[float]], str]


def interquartile_mean(
    values: Sequence[float] | npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Returns the mean without a quarter of the values at each end (Agarwal et al. 2021).

    The quarter is rounded down, as in `scipy.stats.trim_mean`: one of 5 values, none of 3.

    Args:
        values: `(..., n)`, n >= 1.

    Returns:
        `(...)`.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    cut = int(_CUT * ordered.shape[-1])
    middle: npt.NDArray[np.float64] = ordered[..., cut : ordered.shape[-1] - cut]
    return np.asarray(middle.mean(-1))


def interquartile_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the interquartile mean.

    Seeds are resampled with replacement. The resamples are the same in every call, so that a table
    can be made again to the digit.
    """
    draws = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    means = interquartile_mean(np.asarray(values)[draws])
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation over seeds, `0.98 ± 0.01`; of one seed only the mean."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def iqm_and_interval(values: Sequence[float]) -> str:
    """Returns interquartile mean and interval, `0.98 [0.95, 1.00]`; of one seed only its value."""
    if not values:
        return "–"
    middle = f"{interquartile_mean(values):.2f}"
    if len(values) == 1:
        return middle
    low, high = interquartile_interval(values)
    return f"{middle} [{low:.2f}, {high:.2f}]"


SUMMARIES: dict[str, Summary] = {"mean": mean_and_spread, "iqm": iqm_and_interval}
