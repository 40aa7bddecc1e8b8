"""Rollouts count steps whose return-to-go is outside the range of the training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from datamodules import Episode, write_store
from datamodules.sampler import WindowSampler
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.model import SequenceModel
from rate.policy import Policy
from rate.weights import load_model
from tests.digests import remove_from_model
from tests.factories import MODELS
from tests.trainers.conftest import MakeConfig
from tests.trainers.fakes import Numbers
from trainers.rollout import rollout
from trainers.train import train

SPEC = EnvironmentSpec(
    "counting",
    gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
    gymnasium.spaces.Discrete(4),
    target_return=5.0,
)


def policy(rows: int, target: float) -> Policy:
    torch.manual_seed(0)
    model = SequenceModel(MODELS["rate"], SPEC.observation_space, SPEC.action_space).eval()
    return Policy(model, num_envs=rows, target_return=target)


@pytest.mark.parametrize("rows", [1, 3, 12])
@pytest.mark.parametrize("crashes", [{}, {3: 2, 4: 4, 9: 3}])
def test_steps_beyond_the_range_are_counted_in_each_episode(
    rows: int, crashes: dict[int, int]
) -> None:
    """Episodes have 1 + seed % 5 steps with the seed as reward; some are restarted."""
    seeds = list(range(12))
    env = Numbers(rows, crashes)
    found = rollout([policy(rows, 10.0)], [env], seeds, trained_range=(-2.0, 8.0))
    returns_to_go = [[10 - seed * step for step in range(1 + seed % 5)] for seed in seeds]
    outside = [[step for step, r in enumerate(rs) if not -2 <= r <= 8] for rs in returns_to_go]
    assert found.outside is not None
    assert found.first_outside is not None
    assert found.outside.tolist() == [len(steps) for steps in outside]
    assert found.first_outside.tolist() == [min(steps, default=-1) for steps in outside]


@pytest.mark.parametrize("mode", ["hold", "clamp"])
def test_a_held_or_clamped_return_to_go_stays_in_the_range(mode: Any) -> None:
    limits = (-2.0, 8.0)
    torch.manual_seed(0)
    model = SequenceModel(MODELS["rate"], SPEC.observation_space, SPEC.action_space).eval()
    actor = Policy(model, num_envs=3, target_return=8.0, return_to_go=mode, trained_range=limits)
    found = rollout([actor], [Numbers(3, {})], range(12), trained_range=limits)
    falling = rollout([policy(3, 8.0)], [Numbers(3, {})], range(12), trained_range=limits)
    assert found.outside is not None
    assert falling.outside is not None
    assert (found.outside.sum(), falling.outside.sum() > 0) == (0, True)


def test_without_a_range_nothing_is_counted() -> None:
    found = rollout([policy(2, 10.0)], [Numbers(2, {})], range(2))
    assert (found.outside, found.first_outside) == (None, None)


def test_rounding_to_float32_is_not_outside_the_range() -> None:
    """Data keep returns-to-go as float32, and rollouts subtract rewards in float64."""
    low, high = float(np.float32(0.1)), float(np.float32(4000.1))
    found = rollout([policy(1, 4000.1)], [Numbers(1, {})], [1000], trained_range=(low, high))
    assert found.outside is not None
    assert found.outside.tolist() == [0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    rng = np.random.default_rng(3)
    episodes = [
        Episode(
            np.zeros((length, 2), np.float32),
            np.zeros(length, np.int64),
            rng.normal(size=length).astype(np.float32),
            terminated=True,
            truncated=False,
        )
        for length in (3, 9, 4, 7, 12, 5)
    ]
    return write_store(
        episodes, tmp_path_factory.mktemp("data") / "store", SPEC, {"source": "a test"}
    )


@pytest.mark.parametrize("mode", ["start", "random"])
@pytest.mark.parametrize("window", [1, 4, 12])
@pytest.mark.parametrize("limits", [{}, {"min_length": 5}, {"min_return": 0.0}])
def test_the_range_is_that_of_the_training_steps(
    store: Any, mode: Any, window: int, limits: dict[str, Any]
) -> None:
    sampler = WindowSampler(store, 64, window, seed=1, mode=mode, **limits)
    seen = []
    for index in range(40):
        batch = sampler.batch(index)
        seen += batch.returns_to_go[..., 0][batch.mask].tolist()
    assert sampler.returns_to_go_range == (min(seen), max(seen))


def test_weights_hold_the_range_and_scores_the_count(
    make_config: MakeConfig,
) -> None:
    """All returns-to-go in the data of the T-Maze are 1."""
    config = make_config(
        evaluation__target_return=3.0,
        evaluation__return_to_go="decrease",
        evaluation__lengths=[6, 8],
    )
    with pytest.warns(
        UserWarning, match="never saw: at 100 % of the steps at length 6, from step 0"
    ):
        result = train(config)
    for which in ("last", "best"):
        assert load_model(result.folder / "checkpoints" / which).trained_range == (1, 1)
    evaluation = json.loads((result.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["trained_range"] == [1, 1]
    for row in evaluation["rows"]:
        assert (row["rtg_outside"], row["rtg_outside_from"]) == (1, 0)
        assert row["rtg_outside_steps"] == row["episodes"] * row["steps"]


def test_a_run_reports_the_mode_of_its_return_to_go(make_config: MakeConfig) -> None:
    """The target 3 is outside of the range [1, 1] of the T-Maze: clamped, the model is given 1."""
    changes = {"evaluation__target_return": 3.0, "evaluation__return_to_go": "clamp"}
    result = train(make_config(**changes))
    evaluation = json.loads((result.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["evaluation"]["return_to_go"] == "clamp"
    for row in evaluation["rows"]:
        assert (row["return_to_go"], row["rtg_outside"]) == ("clamp", 0)
    plain = train(make_config(logging__name="plain"))
    scores = [[row["return"] for row in run.rows] for run in (result, plain)]
    assert scores[0] == scores[1]
    assert plain.rows[0]["return_to_go"] == "clamp"  # the default


def test_a_mode_that_the_model_cannot_follow_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"is not given returns-to-go \(model.condition_on_return"
    ):
        make_config(model__condition_on_return=False, evaluation__return_to_go="hold")
    with pytest.raises(ConfigError, match="choose one of: decrease, hold, clamp, per_segment"):
        make_config(evaluation__return_to_go="held")


def test_a_target_return_of_the_data_stays_in_their_range(
    make_config: MakeConfig, recwarn: pytest.WarningsRecorder
) -> None:
    for row in train(make_config()).rows:
        assert (row["rtg_outside"], row["rtg_outside_from"]) == (0, None)
    assert not [str(w.message) for w in recwarn if "never saw" in str(w.message)]


def test_a_model_without_returns_to_go_has_no_such_scores(make_config: MakeConfig) -> None:
    result = train(make_config(model__condition_on_return=False, evaluation__target_return=3.0))
    assert not [name for row in result.rows for name in row if name.startswith("rtg")]
    assert load_model(result.folder / "checkpoints" / "last").trained_range is None


@pytest.mark.parametrize("wrong", ["[2, 1]", "[1]", "[NaN, 1]", '"high"', "[0, Infinity]", "5"])
def test_an_invalid_range_is_refused(wrong: str, tmp_path: Path) -> None:
    from rate.errors import WeightsError
    from rate.weights import SavedModel, save_model

    model = SequenceModel(MODELS["rmt"], SPEC.observation_space, SPEC.action_space)
    save_model(SavedModel(model, SPEC, trained_range=(0.5, 1.5)), tmp_path)
    path = tmp_path / "model.json"
    text = path.read_text(encoding="utf-8")
    assert load_model(tmp_path).trained_range == (0.5, 1.5)
    path.write_text(text.replace("[\n    0.5,\n    1.5\n  ]", wrong), encoding="utf-8")
    remove_from_model(tmp_path)
    with pytest.raises(WeightsError, match="describes no model"):
        load_model(tmp_path)
    path.write_text(text.replace('"trained_range"', '"of_old"'), encoding="utf-8")
    remove_from_model(tmp_path)
    assert load_model(tmp_path).trained_range is None  # weights of versions without a range
