"""Statistics over seeds and tasks, against values worked out by hand."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from trainers.statistics import (
    Scores,
    bootstrap,
    estimate,
    interquartile_mean,
    iqm,
    mean,
    median,
    paired_difference,
    probability_of_improvement,
    profile,
    student_p,
    welch,
)


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean([9.0, 0.0, 2.0, 3.0, 4.0]) == 3.0  # one at each end
    assert interquartile_mean([0.0, 1.0, 5.0]) == 2.0  # none
    rows = interquartile_mean(np.array([[1.0, 2, 3, 100], [0, 4, 6, 6]]))
    np.testing.assert_allclose(rows, [2.5, 5.0])


def test_the_bootstrap_interval_is_that_of_all_resamples() -> None:
    """Of two values there are four resamples: a quarter each is below and above both tails."""
    assert bootstrap(Scores([[0.0, 1.0]]), iqm) == (0.0, 1.0)
    assert bootstrap(Scores([[0.7, 0.7, 0.7]]), iqm) == pytest.approx((0.7, 0.7))
    values = [0.2, 0.45, 0.6, 0.7, 0.9]
    resamples = interquartile_mean(np.array(list(product(values, repeat=5))))
    low, high = np.percentile(resamples, [2.5, 97.5])
    assert bootstrap(Scores([values]), iqm) == pytest.approx((low, high))


def test_mean_and_median_are_over_tasks_of_means_over_seeds() -> None:
    tasks = Scores([[0.0, 1.0], [4.0, 6.0], [2.0, 2.0, 2.0, 14.0]])  # means 0.5, 5 and 5
    assert mean(tasks.arrays()) == pytest.approx(10.5 / 3)
    assert median(tasks.arrays()) == 5.0
    assert iqm(tasks.arrays()) == pytest.approx((2 + 2 + 2 + 4) / 4)  # without 0, 1, 6 and 14
    assert estimate(tasks, mean).value == pytest.approx(3.5)


def test_seeds_are_resampled_within_their_task() -> None:
    """All seeds of a task are equal: every resample has the same mean."""
    low, high = bootstrap(Scores([[1.0, 1.0], [5.0, 5.0], [9.0, 9.0]]), mean)
    assert (low, high) == (5.0, 5.0)


def test_tasks_of_the_same_runs_are_resampled_together() -> None:
    """A run that is good at one length is bad at the other: their mean never varies.

    Of independent runs it is the mean of two resampled coins, and varies from 0 to 1.
    """
    opposite = [[0.0, 1.0], [1.0, 0.0]]
    assert bootstrap(Scores(opposite, ["run", "run"]), mean) == (0.5, 0.5)
    assert bootstrap(Scores(opposite), mean) == (0.0, 1.0)
    assert bootstrap(Scores(opposite, ["run", "another"]), mean) == (0.0, 1.0)


def test_profiles_are_shares_above_each_threshold() -> None:
    above = profile(np.array([0.0, 0.5, 1.0]))
    tasks = Scores([[0.5, 1.0], [0.0, 0.25, 0.75, 1.0]])
    # Above 0: 2 of 2 and 3 of 4; above 0.5 (not at it): 1 of 2 and 2 of 4; above 1: none.
    np.testing.assert_allclose(above(tasks.arrays()), [(1 + 0.75) / 2, 0.5, 0.0])
    low, high = bootstrap(Scores([[0.0, 1.0]]), above)
    np.testing.assert_allclose([low, high], [[0, 0, 0], [1, 1, 0]])


def test_the_probability_of_improvement_counts_ties_half() -> None:
    """Of the pairs of (1, 2, 3) and (2, 0): 1 > 0, 2 = 2, 2 > 0, 3 > 2, 3 > 0; 1 < 2."""
    x, y = Scores([[1.0, 2.0, 3.0]]), Scores([[2.0, 0.0]])
    assert probability_of_improvement(x, y).value == pytest.approx(4.5 / 6)
    assert probability_of_improvement(y, x).value == pytest.approx(1.5 / 6)
    two = probability_of_improvement(Scores([[1.0, 2.0, 3.0], [0.0]]), Scores([[2.0, 0.0], [5.0]]))
    assert two.value == pytest.approx((0.75 + 0.0) / 2)
    same = probability_of_improvement(x, x)
    assert (same.value, same.low < 0.5 < same.high) == (0.5, True)


def test_both_models_are_resampled_for_the_probability_of_improvement() -> None:
    """Each pair of resamples of (0, 2) and (1, 1) wins 0, 1/2 or 1; of (0, 2) and (1,) as well."""
    for other in ([1.0, 1.0], [1.0]):
        found = probability_of_improvement(Scores([[0.0, 2.0]]), Scores([other]))
        assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
        found = probability_of_improvement(Scores([other]), Scores([[0.0, 2.0]]))
        assert (found.low, found.high) == (0.0, 1.0)
    runs = [("tmaze", 1, 2)] * 2
    x, y = Scores([[0.0, 2.0], [2.0, 0.0]], runs), Scores([[1.0, 1.0], [1.0, 1.0]], runs)
    found = probability_of_improvement(x, y)
    assert (found.low, found.high) == (0.5, 0.5)  # of the same runs; see above


def test_what_pairs_share_does_not_widen_the_interval_of_their_difference() -> None:
    first, second = [0.1, 0.5, 0.9], [0.0, 0.4, 0.8]
    found = paired_difference(Scores([first]), Scores([second]))
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    found = paired_difference(Scores([[3.0, 1.0]]), Scores([[0.0, 2.0]]))  # 3 and -1
    assert (found.value, found.low, found.high) == (1.0, -1.0, 3.0)


def test_the_welch_test_of_two_samples() -> None:
    """Variances 1 and 4, of three each: a = 1/3, b = 4/3, ν = (5/3)² / (a²/2 + b²/2) = 50/17."""
    found = welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert found is not None
    assert found.t == pytest.approx(-2 / math.sqrt(5 / 3))
    assert found.freedom == pytest.approx(50 / 17)
    assert found.p == pytest.approx(0.221, abs=5e-4)
    with_more = welch([1.0, 2.0, 3.0], [2.0, 4.0])  # a = 1/3, b = 2/2, ν = (16/9) / (1/18 + 1)
    assert with_more is not None
    assert with_more.freedom == pytest.approx(32 / 19)


def test_of_equal_variances_and_sizes_the_welch_test_is_that_of_student() -> None:
    found = welch([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert found is not None
    assert (found.t, found.freedom) == pytest.approx((-1 / math.sqrt(2 / 3), 4.0))


def test_the_welch_test_is_undefined_without_variance_or_with_one_seed() -> None:
    assert welch([1.0, 1.0], [0.5, 0.5]) is None
    assert welch([1.0], [0.5, 0.6]) is None
    assert welch([1.0, 1.0], [0.5, 0.6]) is not None


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [
        (1.0, 1.0, 0.5),  # Cauchy: 1 - 2 arctan(1) / π
        (12.706204736, 1.0, 0.05),  # the tables of Student's t
        (2.085963447, 20.0, 0.05),
        (-2.845339710, 20.0, 0.01),
        (0.0, 3.3, 1.0),
        (math.sqrt(2), 2.0, 1 - math.sqrt(2) / 2),  # 1 - t / √(2 + t²)
        (1e-9, 7.5, 1.0),
        (1.959963985, 1e7, 0.05),  # nearly a normal distribution
        (50.0, 4.0, 9.5735e-7),
    ],
)
def test_p_values_of_students_t(t: float, freedom: float, p: float) -> None:
    assert student_p(t, freedom) == pytest.approx(p, rel=1e-4)
