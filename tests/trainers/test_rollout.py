"""Rollouts count what they should, and nothing notices that they took place."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rate.envs.tmaze import TMAZE_SPEC, TMazeOracle, TMazeVector
from rate.model import SequenceModel
from tests.factories import MODELS
from trainers.config import EvaluationConfig
from trainers.rollout import evaluate, rollout


class Countdown(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Row i ends after i + 1 steps, but goes on giving rewards and changing its mind."""

    def __init__(self, num_envs: int, tells: bool = True) -> None:
        self.num_envs, self.tells, self.time = num_envs, tells, 0
        self.seeds: Any = None

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.seeds, self.time = seed, 0
        return np.zeros((self.num_envs, 4), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.time += 1
        rows = np.arange(self.num_envs)
        ended = self.time == rows + 1
        info = {"success": (rows % 2 == 0) == ended} if self.tells else {}
        observations = np.zeros((self.num_envs, 4), np.float32)
        return observations, np.ones(self.num_envs), ended & (rows < 2), ended & (rows >= 2), info


class Idle:
    """A policy that notes when it is started."""

    def __init__(self) -> None:
        self.resets, self.rewards = 0, 0

    def reset(self) -> None:
        self.resets += 1

    def act(self, observations: Any, rewards: Any = None) -> Any:
        self.rewards += rewards is not None
        return np.zeros(len(observations), np.int64)


def test_a_finished_row_counts_no_more() -> None:
    env, policy, steps = Countdown(4), Idle(), []
    result = rollout(policy, env, [7, 8, 9, 10], on_step=steps.append)
    assert env.seeds == [7, 8, 9, 10]
    assert result.returns.tolist() == [1, 2, 3, 4]
    assert result.lengths.tolist() == [1, 2, 3, 4]
    assert result.successes.tolist() == [True, False, True, False]
    assert steps == [1, 2, 3, 4]
    assert (policy.resets, policy.rewards) == (1, 3)


def test_a_rollout_can_be_cut() -> None:
    result = rollout(Idle(), Countdown(4), range(4), max_steps=2)
    assert result.lengths.tolist() == [1, 2, 2, 2]
    assert result.successes.tolist() == [True, False, False, False]


def test_an_environment_may_tell_no_success() -> None:
    assert rollout(Idle(), Countdown(2, tells=False), range(2)).successes is None
    model = SequenceModel(MODELS["rate"], TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space)
    config = EvaluationConfig(episodes=2)
    make_vector = lambda count, length: Countdown(count, tells=False)  # noqa: E731
    (row,) = evaluate(model, TMAZE_SPEC, make_vector, config, lengths=[5], first_seed=0)
    assert (row["success"], row["sem"], row["return"]) == (None, None, 1.5)


def test_the_oracle_succeeds() -> None:
    class Oracle(TMazeOracle):
        def reset(self) -> None:  # type: ignore[override]
            super().reset(20)

        def act(self, observations: Any, rewards: Any = None) -> Any:
            return self.step(observations)

    result = rollout(Oracle(), TMazeVector(20, 9), range(20))
    assert result.successes.all()
    assert (result.returns == 1).all()
    assert (result.lengths == 8).all()


@pytest.mark.parametrize("method", ["argmax", "sample"])
@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_no_trace_and_repeats_itself(method, training) -> None:
    from rate.heads import Decoding

    model = SequenceModel(MODELS["rate"], TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space)
    model.train(training)
    config = EvaluationConfig(episodes=10, decoding=Decoding(method=method))
    random_state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    score = lambda: evaluate(  # noqa: E731
        model, TMAZE_SPEC, TMazeVector, config, lengths=[5, 9], first_seed=3
    )
    first = score()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(module.training == training for module in model.modules())
    assert torch.get_num_threads() == threads
    assert score() == first
    assert [row["length"] for row in first] == [5, 9]


def test_scores_are_means_with_their_standard_errors() -> None:
    model = SequenceModel(MODELS["rate"], TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space)
    config = EvaluationConfig(episodes=4)
    make_vector = lambda count, length: Countdown(count)  # noqa: E731
    (row,) = evaluate(model, TMAZE_SPEC, make_vector, config, lengths=[5], first_seed=0)
    assert row["episodes"] == 4
    assert (row["success"], row["return"]) == (0.5, 2.5)
    assert row["sem"] == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)
    assert row["return_sem"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
