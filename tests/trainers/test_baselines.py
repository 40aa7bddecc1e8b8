"""The expert and random actions are scored as models are."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from rate.errors import ConfigError, UserError
from tests.trainers.fakes import with_parts
from trainers.baselines import score_baseline
from trainers.environment import BASELINES
from trainers.registry import get_environment

RETRIEVAL = get_environment("retrieval")


def die(policy: str, length: int) -> Any:
    os._exit(3)


def test_the_expert_of_retrieval_always_succeeds() -> None:
    (row,) = score_baseline("expert", RETRIEVAL, lengths=[9], seeds=range(20), workers=1)
    assert row == {
        "length": 9,
        "episodes": 20,
        "first_seed": 0,
        "success": 1.0,
        "sem": 0.0,
        "return": 1.0,
        "return_sem": 0.0,
        "steps": 9.0,
        "invalid": 0,
        "success_0": 1.0,
        "success_1": 1.0,
        "imbalance": 0.0,
    }


def test_random_actions_have_the_expected_success() -> None:
    """Two of three first actions continue and one of three last actions is right: 2 / 9."""
    (row,) = score_baseline("random", RETRIEVAL, lengths=[4], seeds=range(400), workers=2)
    assert row["success"] == row["return"] == pytest.approx(2 / 9, abs=0.05)
    assert row["success_0"] == pytest.approx(1 / 3, abs=0.1)
    assert row["success_1"] == pytest.approx(1 / 3, abs=0.1)
    assert row["steps"] == pytest.approx((1 + 2 * 4) / 3, abs=0.2)
    # Several processes play the same actions as one.
    assert RETRIEVAL.make_collector is not None
    collector = RETRIEVAL.make_collector("random", 4)
    returns = [float(np.sum(collector.collect(seed).rewards)) for seed in range(400)]
    assert row["return"] == np.mean(returns)


def test_an_unknown_baseline_is_refused() -> None:
    assert BASELINES == ("expert", "random")
    with pytest.raises(ConfigError, match="no baseline 'oracle'; there are: expert, random"):
        score_baseline("oracle", RETRIEVAL, lengths=[5], seeds=[1])


def test_an_environment_may_have_no_expert() -> None:
    with pytest.raises(ConfigError, match="tmaze has no expert"):
        score_baseline("expert", get_environment("tmaze"), lengths=[5], seeds=[1])


def test_a_crashed_simulator_is_reported() -> None:
    dying = with_parts(RETRIEVAL, make_collector=die)
    with pytest.raises(
        UserError, match=r"seed 1 failed 3 times: it ended with exit code 3.*doctor\.py"
    ):
        score_baseline("expert", dying, lengths=[5], seeds=[1], workers=1)
