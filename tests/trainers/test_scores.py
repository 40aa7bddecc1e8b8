"""Rows of scores computed from episodes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trainers.episode_rows import RolloutResult
from trainers.scores import remarks, scores

PLAIN = ["success", "sem", "return", "return_sem", "steps", "invalid"]
GROUP = ("cue", ("ball", "key"))


def result(returns: list[float], **outcomes: list[float]) -> RolloutResult:
    return RolloutResult(
        np.array(returns, dtype=np.float64),
        np.arange(1, len(returns) + 1),
        {name: np.array(values, dtype=np.float64) for name, values in outcomes.items()},
    )


def test_scores_are_means_with_their_standard_errors() -> None:
    row = scores(result([1, 2, 3, 4], success=[1, 0, 1, 0], size=[7, 7, 9, 9]))
    assert list(row) == [*PLAIN, "size"]
    assert (row["success"], row["return"], row["steps"], row["size"]) == (0.5, 2.5, 2.5, 8.0)
    assert row["sem"] == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)
    assert row["return_sem"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert all(type(value) in (float, int) for value in row.values())  # types that JSON accepts


def test_one_episode_has_no_spread() -> None:
    row = scores(result([2], success=[1]))
    assert (row["success"], row["sem"], row["return_sem"]) == (1, 0, 0)


def test_groups_are_scored_separately() -> None:
    row = scores(result([0] * 5, success=[1, 1, 0, 1, 0], cue=[0, 0, 0, 1, 1], size=[7] * 5), GROUP)
    assert row["success_ball"] == pytest.approx(2 / 3)
    assert row["success_key"] == 0.5
    assert row["imbalance"] == pytest.approx(1 / 6)
    assert "cue" not in row  # the mean of a name
    assert row["size"] == 7


def test_without_success_groups_have_returns() -> None:
    row = scores(result([5, 1, 3], cue=[1, 0, 0]), GROUP)
    assert (row["return_ball"], row["return_key"], row["imbalance"]) == (2, 5, 3)
    assert (row["success"], row["sem"]) == (None, None)
    assert "success_ball" not in row


@pytest.mark.parametrize(
    ("cue", "expected"),
    [
        ([1, 1, 1], (None, 1 / 3, None)),  # no episode showed a ball
        ([0, 0, 0], (1 / 3, None, None)),
        ([-1, 2, 2], (None, None, None)),  # neither
        ([0, 2, 1], (1, 0, 1)),  # one belongs to neither
    ],
)
def test_a_group_without_episodes_has_no_score(cue: list[float], expected: Any) -> None:
    row = scores(result([0, 0, 0], success=[1, 0, 0], cue=cue), GROUP)
    assert (row["success_ball"], row["success_key"], row["imbalance"]) == expected
    assert row["success"] == pytest.approx(1 / 3)


def test_an_environment_without_groups_has_no_group_scores() -> None:
    assert list(scores(result([1]), GROUP)) == PLAIN


nan, inf = math.nan, math.inf


def test_an_episode_that_is_not_finite_is_flagged_and_left_out() -> None:
    returns = [1, nan, 3, inf, 5, -inf, 7]
    outcomes = {"success": [1, 1, 0, 1, nan, 1, 1], "size": [1, 2, 3, 4, 5, 6, 7]}
    row = scores(result(returns, **outcomes, cue=[0, 0, 1, 1, 0, 0, 1]), GROUP)
    kept = scores(result([1, 3, 7], success=[1, 0, 1], size=[1, 3, 7], cue=[0, 1, 1]), GROUP)
    assert row == {**kept, "invalid": 4, "steps": (1 + 3 + 7) / 3}
    json.dumps(row, allow_nan=False)
    (line,) = remarks([{"model": "rate", "which": "last", "length": 9, "episodes": 7, **row}])
    assert line.endswith("are left out of the scores: 4 at length 9 (rate last).")


@pytest.mark.parametrize("outcomes", [{}, {"success": [1, 0], "cue": [0, 1], "size": [3, 4]}])
def test_without_a_finite_episode_there_is_no_score(outcomes: Any) -> None:
    row = scores(result([nan, inf], **outcomes), GROUP)
    assert row.pop("invalid") == 2
    assert set(row.values()) == {None}


def test_an_outcome_of_some_episodes_is_the_mean_over_them() -> None:
    row = scores(result([1, 2, 3, nan], size=[4, nan, 6, 9], far=[inf, nan, -inf, 1], all=[1] * 4))
    assert (row["size"], row["size_episodes"]) == (5, 2)
    assert (row["far"], row["far_episodes"]) == (None, 0)
    assert row["all"] == 1
    assert "all_episodes" not in row
    json.dumps(row, allow_nan=False)


def test_sums_that_overflow_are_none() -> None:
    row = scores(result([1e308, 1.5e308, 1.6e308]))
    assert (row["return"], row["invalid"]) == (None, 0)
    json.dumps(row, allow_nan=False)


def test_outcomes_do_not_replace_scores() -> None:
    row = scores(result([1, 2], steps=[50, 60], **{"return": [8, 9]}, episodes=[3, 4]))
    assert (row["return"], row["steps"]) == (1.5, 1.5)
    assert (row["info_return"], row["info_steps"], row["info_episodes"]) == (8.5, 55, 3.5)
    assert "episodes" not in row


def test_steps_beyond_the_data_are_counted() -> None:
    plain = result([1, nan, 3])  # of 1, 2 and 3 steps
    counts = np.array([0, 2, 3]), np.array([-1, 0, 5])
    row = scores(replace(plain, outside=counts[0], first_outside=counts[1]))
    assert {name: row[name] for name in row if name.startswith("rtg")} == {
        "rtg_outside": 3 / 4,
        "rtg_outside_steps": 3,
        "rtg_outside_from": 5,
    }
    (line,) = remarks([{"length": 9, "episodes": 3, **row, "invalid": 0}])
    assert "never saw: at 75 % of the steps at length 9, from step 5 on. " in line
    assert "--return-to-go hold`" in line
    (line,) = remarks([{"length": n, "episodes": 3, **row, "invalid": 0} for n in range(9)])
    assert line.count("at length") == 4
    assert "; and 5 more. " in line
    none = np.array([0, 0, 0]), np.array([-1, -1, -1])
    row = scores(replace(plain, outside=none[0], first_outside=none[1]))
    assert (row["rtg_outside"], row["rtg_outside_from"]) == (0, None)
    assert remarks([{"length": 9, "episodes": 3, **row, "invalid": 0}]) == []
