"""Statistics of scores over training seeds and tasks, and their uncertainty.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv:2108.13264). A *task* is what is scored by itself, such as an environment at one length. M
tasks have scores x_m of shape `(n_m,)`, one for each training seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Statistic = Callable[[list[Array]], Array]
"""Of tasks `(..., n_m)` to `(...)`, where leading axes are resamples."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CUT = 0.25  # of the values, at each end
_TINY = 1e-300
_MOST_TERMS = 10_000  # of a continued fraction


@dataclass(frozen=True)
class Scores:
    """The scores of tasks over seeds.

    Attributes:
        tasks: x_m of M >= 1 tasks, n_m >= 1 scores each.
        runs: Of each task, a key of the runs that were scored. Tasks of the same key are those of
            the same runs, in the same order, such as lengths at which the same weights were
            evaluated; they are resampled together, since they are not independent. If empty, each
            task has runs of its own.
    """

    tasks: Sequence[Sequence[float]]
    runs: Sequence[Hashable] = ()

    @property
    def seeds(self) -> set[int]:
        """The different numbers of seeds of the tasks."""
        return {len(task) for task in self.tasks}

    def arrays(self) -> list[Array]:
        return [np.asarray(task, np.float64) for task in self.tasks]

    def resampled(self, rng: np.random.Generator) -> list[Array]:
        """Returns resamples of each task, `(R, n_m)`, with replacement."""
        draws: dict[Hashable, npt.NDArray[np.int64]] = {}
        for key, count in zip(self._keys(), map(len, self.tasks), strict=True):
            if key not in draws:
                draws[key] = rng.integers(count, size=(RESAMPLES, count))
        return [task[draws[key]] for key, task in zip(self._keys(), self.arrays(), strict=True)]

    def _keys(self) -> Sequence[Hashable]:
        return self.runs or range(len(self.tasks))


@dataclass(frozen=True)
class Estimate:
    """A statistic of scores with its bootstrap interval.

    Attributes:
        value: The statistic.
        low: Lower end of the 95 % percentile interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Welch:
    """A two-sided Welch test of equal means.

    Attributes:
        t: The statistic; positive if the first mean is greater.
        freedom: Degrees of freedom.
        p: The probability of a statistic at least as far from zero under equal means.
    """

    t: float
    freedom: float
    p: float


def interquartile_mean(values: Sequence[float] | Array) -> Array:
    """Returns the mean without a quarter of the values at each end (Agarwal et al. 2021, §4.3).

    The quarter is rounded down, as in `scipy.stats.trim_mean`: one of 5 values, none of 3.

    Args:
        values: `(..., n)`, n >= 1.

    Returns:
        `(...)`.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    cut = int(_CUT * ordered.shape[-1])
    middle: Array = ordered[..., cut : ordered.shape[-1] - cut]
    return np.asarray(middle.mean(-1))


def iqm(tasks: list[Array]) -> Array:
    """Returns the interquartile mean of the scores of all tasks and seeds together."""
    return interquartile_mean(np.concatenate(tasks, -1))


def mean(tasks: list[Array]) -> Array:
    """Returns the mean over tasks of the mean over seeds."""
    return np.asarray(np.mean([task.mean(-1) for task in tasks], 0))


def median(tasks: list[Array]) -> Array:
    """Returns the median over tasks of the mean over seeds."""
    return np.asarray(np.median([task.mean(-1) for task in tasks], 0))


MIDDLES: dict[str, Statistic] = {"mean": mean, "iqm": iqm}


def profile(thresholds: Array) -> Statistic:
    """Returns the statistic of performance profiles (Agarwal et al. 2021, §4.2).

    It is the share of scores above each threshold, F(τ) = 1/M Σ_m 1/n_m Σ_i 1[x_mi > τ].

    Args:
        thresholds: τ, `(T,)`; the statistic of tasks `(..., n_m)` is `(..., T)`.
    """

    def shares(tasks: list[Array]) -> Array:
        each = [(task[..., None] > thresholds).mean(-2) for task in tasks]  # (..., n_m, T)
        return np.asarray(np.mean(each, 0))

    return shares


def bootstrap(scores: Scores, statistic: Statistic) -> tuple[Array, Array]:
    """Returns both ends of the stratified 95 % percentile bootstrap interval of a statistic.

    The seeds of each task are resampled with replacement (Agarwal et al. 2021, §4.1). The resamples
    are the same in every call, so that a table can be made again to the digit.

    Args:
        scores: The scores.
        statistic: Of tasks `(R, n_m)` to `(R, ...)`.

    Returns:
        Lower and upper ends, `(...)`.
    """
    tail = 50 * (1 - CONFIDENCE)
    found = statistic(scores.resampled(np.random.default_rng(0)))
    low, high = np.percentile(found, [tail, 100 - tail], axis=0)
    return low, high


def estimate(scores: Scores, statistic: Statistic) -> Estimate:
    """Returns a statistic of scores with its interval; see `bootstrap`."""
    low, high = bootstrap(scores, statistic)
    return Estimate(float(statistic(scores.arrays())), float(low), float(high))


def paired_difference(first: Scores, second: Scores) -> Estimate:
    """Returns the mean difference of paired scores, with the interval of a paired bootstrap.

    The pairs of each task are resampled: what both scores of a seed have in common, such as data,
    does not widen the interval.

    Args:
        first: Of M tasks.
        second: Of the same tasks, runs and seeds, in the same order.
    """
    pairs = zip(first.arrays(), second.arrays(), strict=True)
    return estimate(Scores([(a - b).tolist() for a, b in pairs], first.runs), mean)


def probability_of_improvement(first: Scores, second: Scores) -> Estimate:
    """Returns how likely a seed of the first is above a seed of the second, on a random task.

    P(X > Y) = 1/M Σ_m U_m / (n_m k_m), with the Mann-Whitney statistic U_m = Σ_ij s(x_mi, y_mj),
    where s is 1 if x > y, 1/2 if they are equal, and 0 otherwise (Agarwal et al. 2021, §4.3). The
    seeds of both are resampled, each by themselves.

    Args:
        first: x, of M tasks.
        second: y, of the same tasks; the seeds may be others, and more or fewer.
    """

    def statistic(tasks: list[Array]) -> Array:
        wins = []
        for x, y in zip(tasks[::2], tasks[1::2], strict=True):
            above = np.sign(x[..., :, None] - y[..., None, :])  # (..., n, k)
            wins.append((0.5 + 0.5 * above).mean((-2, -1)))
        return np.asarray(np.mean(wins, 0))

    pairs = zip(first.tasks, second.tasks, strict=True)
    runs = [
        (side, key)
        for pair in zip(first.runs, second.runs, strict=True)
        for side, key in enumerate(pair)
    ]
    return estimate(Scores([task for pair in pairs for task in pair], runs), statistic)


def welch(first: Sequence[float], second: Sequence[float]) -> Welch | None:
    """Returns Welch's test of two samples, whose variances may differ.

    t = (x̄ - ȳ) / √(a + b) with a = s_x²/n and b = s_y²/k, and (a + b)² / (a²/(n-1) + b²/(k-1))
    degrees of freedom (Welch 1947).

    Returns:
        The test; None if a sample has fewer than two values or none of them vary, where it is not
        defined.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if min(len(x), len(y)) < 2:
        return None
    a, b = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    if a + b == 0:
        return None
    t = float(x.mean() - y.mean()) / math.sqrt(a + b)
    freedom = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    return Welch(t, freedom, student_p(t, freedom))


def student_p(t: float, freedom: float) -> float:
    """Returns the two-sided p value of Student's t: I_x(ν/2, 1/2) at x = ν / (ν + t²).

    Args:
        t: The statistic.
        freedom: ν > 0, any real number.
    """
    a, b, x = freedom / 2, 0.5, freedom / (freedom + t * t)
    if x in (0.0, 1.0):
        return x
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Returns the continued fraction of the incomplete beta function (DLMF 8.17.22).

    It is evaluated from the front, as a product of the ratios of successive convergents (Lentz).
    """
    ratio, upper, lower = 1.0, 1 / _TINY, 1.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        upper, lower = (1 + d / upper) or _TINY, 1 / ((1 + d * lower) or _TINY)
        ratio *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return ratio
