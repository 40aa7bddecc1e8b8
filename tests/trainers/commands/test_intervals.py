"""Statistics over seeds, against values worked out by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from trainers.commands.intervals import interquartile_interval, interquartile_mean


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean([9.0, 0.0, 2.0, 3.0, 4.0]) == 3.0  # one at each end
    assert interquartile_mean([0.0, 1.0, 5.0]) == 2.0  # none
    rows = interquartile_mean([[1, 2, 3, 100], [0, 4, 6, 6]])
    np.testing.assert_allclose(rows, [2.5, 5.0])


def test_the_bootstrap_interval_is_that_of_all_resamples() -> None:
    """Of two values there are four resamples: a quarter each is below and above both tails."""
    assert interquartile_interval([0.0, 1.0]) == (0.0, 1.0)
    assert interquartile_interval([0.7, 0.7, 0.7]) == pytest.approx((0.7, 0.7))
    values = [0.2, 0.45, 0.6, 0.7, 0.9]
    resamples = interquartile_mean(list(product(values, repeat=5)))
    low, high = np.percentile(resamples, [2.5, 97.5])
    assert interquartile_interval(values) == pytest.approx((low, high))
