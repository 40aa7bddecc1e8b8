"""What rows of scores say of episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainers.episode_rows import RolloutResult
from trainers.rollout import scores

GROUP = ("cue", ("ball", "key"))


def result(returns: list[float], **outcomes: list[float]) -> RolloutResult:
    return RolloutResult(
        np.array(returns, dtype=np.float64),
        np.arange(1, len(returns) + 1),
        {name: np.array(values, dtype=np.float64) for name, values in outcomes.items()},
    )


def test_scores_are_means_with_their_standard_errors() -> None:
    row = scores(result([1, 2, 3, 4], success=[1, 0, 1, 0], size=[7, 7, 9, 9]))
    assert list(row) == ["success", "sem", "return", "return_sem", "steps", "size"]
    assert (row["success"], row["return"], row["steps"], row["size"]) == (0.5, 2.5, 2.5, 8.0)
    assert row["sem"] == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)
    assert row["return_sem"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert all(type(value) is float for value in row.values())  # what JSON takes


def test_one_episode_has_no_spread() -> None:
    row = scores(result([2], success=[1]))
    assert (row["success"], row["sem"], row["return_sem"]) == (1, 0, 0)


def test_groups_are_told_apart() -> None:
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
        ([1, 1, 1], (None, 1 / 3, None)),  # nobody saw a ball
        ([0, 0, 0], (1 / 3, None, None)),
        ([-1, 2, 2], (None, None, None)),  # neither
        ([0, 2, 1], (1, 0, 1)),  # one belongs to neither
    ],
)
def test_a_group_without_episodes_has_no_score(cue: list[float], expected: Any) -> None:
    row = scores(result([0, 0, 0], success=[1, 0, 0], cue=cue), GROUP)
    assert (row["success_ball"], row["success_key"], row["imbalance"]) == expected
    assert row["success"] == pytest.approx(1 / 3)


def test_an_environment_that_does_not_tell_its_group_has_none() -> None:
    assert list(scores(result([1]), GROUP)) == ["success", "sem", "return", "return_sem", "steps"]
