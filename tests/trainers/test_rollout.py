"""Rollouts: counts of episodes, restarts, overlap, and independence from training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rate.config import Decoding
from rate.envs.retrieval import RetrievalOptions, RetrievalVector
from rate.envs.tmaze import TMAZE_SPEC, TMazeOracle, TMazeVector
from rate.envs.worker_vector import WorkerVectorEnv
from rate.model import SequenceModel
from rate.policy import Policy
from tests.factories import MODELS
from tests.trainers.fakes import Countdown, Counting, Idle, Numbers, Punctual, with_parts
from tests.worker_envs import Noise
from trainers.config import EvaluationConfig
from trainers.environment import Environment
from trainers.episode_rows import RolloutResult, outcomes_in
from trainers.registry import get_environment
from trainers.rollout import evaluate, rollout


def make_model(**changes: Any) -> SequenceModel:
    """Returns a T-Maze model with all parameters changed from their initial values."""
    torch.manual_seed(1)
    config = replace(MODELS["rate"], **changes)
    model = SequenceModel(config, TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def entry_of(make_vector: Any, **changes: Any) -> Environment:
    """Returns the T-Maze with another vector environment."""
    return with_parts(get_environment("tmaze"), make_vector=make_vector, **changes)


def test_a_finished_row_is_not_counted() -> None:
    env, policy, told = Countdown(4), Idle(), []
    result = rollout([policy], [env], [7, 8, 9, 10], on_step=lambda *news: told.append(news))
    assert env.seeds == [7, 8, 9, 10]
    assert result.returns.tolist() == [1, 2, 3, 4]
    assert result.lengths.tolist() == [1, 2, 3, 4]
    assert {name: list(v) for name, v in result.outcomes.items()} == {"success": [1, 0, 1, 0]}
    assert told == [(1, 3), (2, 4), (3, 3), (4, 0)]
    assert (policy.resets, policy.rewards) == (1, 3)


def test_a_rollout_can_be_cut_short() -> None:
    result = rollout([Idle()], [Countdown(4)], range(4), max_steps=2)
    assert result.lengths.tolist() == [1, 2, 2, 2]
    assert result.outcomes["success"].tolist() == [1, 0, 0, 0]


def test_an_environment_may_have_no_success() -> None:
    assert rollout([Idle()], [Countdown(2, tells=False)], range(2)).outcomes == {}
    entry = entry_of(lambda count, length: Countdown(count, tells=False))
    (row,) = evaluate(
        make_model(),
        entry,
        EvaluationConfig(return_to_go="decrease", episodes=2),
        lengths=[5],
        first_seed=0,
    )
    assert (row["success"], row["sem"], row["return"]) == (None, None, 1.5)


def test_the_oracle_succeeds() -> None:
    class Oracle(TMazeOracle):
        def reset(self, **_: Any) -> None:  # type: ignore[override]
            super().reset(20)

        def act(self, observations: Any, rewards: Any = None) -> Any:
            return self.step(observations)

    result = rollout([Oracle()], [TMazeVector(20, 9)], range(20))
    assert (result.outcomes["success"] == 1).all()
    assert (result.returns == 1).all()
    assert (result.lengths == 8).all()


@pytest.mark.parametrize("num_envs", [1, 3, 7, 20])
def test_rows_continue_until_every_seed_was_played_once(num_envs: int) -> None:
    seeds = [int(seed) for seed in np.random.default_rng(0).permutation(60)[:20]]
    env, told = Numbers(num_envs, {}), []
    policy = Punctual(num_envs)
    result = rollout([policy], [env], seeds, on_step=lambda *news: told.append(news))
    assert sorted(env.begun) == sorted(seeds)
    assert result.lengths.tolist() == [1 + seed % 5 for seed in seeds]
    assert result.returns.tolist() == [seed * (1 + seed % 5) for seed in seeds]
    assert result.outcomes["number"].tolist() == seeds
    assert list(result.outcomes) == ["number"]  # text and masks are no outcomes
    ended = [number for number, _ in told]
    assert ended == sorted(ended)
    assert told[-1] == (20, 0)
    assert all(0 <= steps < 5 * num_envs for _, steps in told)


@pytest.mark.parametrize("in_reset", [False, True])
def test_a_restarted_episode_is_counted_once(in_reset: bool) -> None:
    seeds = range(30)
    crashes = {3: 2, 4: 4, 9: 4, 14: 1, 28: 3}
    env, policy = Numbers(6, crashes, in_reset), Punctual(6)
    result = rollout([policy], [env], seeds)
    assert len(env.crashes) <= in_reset * 2  # with `in_reset`, some crash points are not reached
    assert sorted(env.begun) == list(seeds)
    assert result.lengths.tolist() == [1 + seed % 5 for seed in seeds]
    assert result.returns.tolist() == [seed * (1 + seed % 5) for seed in seeds]
    assert result.outcomes["number"].tolist() == list(seeds)


def test_a_crashed_simulator_changes_no_score(tmp_path: Any) -> None:
    """Uses a real worker process; observations depend on all actions of the episode."""

    def play(make_env: Any) -> RolloutResult:
        env = WorkerVectorEnv(make_env, 3, 2)
        try:
            return rollout([Counting(3)], [env], range(9, 16))
        finally:
            env.close()

    unharmed = play(Noise)
    killed = play(lambda: Noise(misdeed="kill", once=tmp_path / "killed"))
    assert (tmp_path / "killed").exists()
    assert killed.returns.tolist() == unharmed.returns.tolist()
    assert killed.lengths.tolist() == unharmed.lengths.tolist() == [4, 5, 6, 3, 4, 5, 6]
    assert {n: v.tolist() for n, v in killed.outcomes.items()} == {
        n: v.tolist() for n, v in unharmed.outcomes.items()
    }


class InOrder:
    """A group of rows whose simulators step only when `step_wait` is called."""

    def __init__(self, env: Any) -> None:
        self.num_envs, self.reset, self.step = env.num_envs, env.reset, env.step
        self.metadata = env.metadata


@pytest.mark.parametrize("deaths", [False, True])
def test_overlapped_simulators_do_not_change_results(deaths: bool, tmp_path: Any) -> None:
    """A model samples actions, and simulators are killed while it computes for other rows."""
    model = make_image_model()
    once = tmp_path / "killed"

    def play(groups: int, overlap: bool, rows: int = 6) -> RolloutResult:
        make_env = (lambda: Noise(misdeed="kill", once=once)) if deaths and overlap else Noise
        env = WorkerVectorEnv(make_env, rows, 2)
        parts = [part if overlap else InOrder(part) for part in env.groups(groups)]
        assert [part.num_envs for part in parts] == [rows // groups] * groups
        decoding = Decoding("sample", temperature=5.0)
        policies = [
            Policy(model, num_envs=part.num_envs, target_return=1.0, decoding=decoding)
            for part in parts
        ]
        try:
            return rollout(policies, parts, range(5, 30))
        finally:
            env.close()

    overlapped, told = play(2, True), play(2, False)
    assert once.exists() is deaths
    for other in (told, play(1, False), play(1, False, rows=4)):
        assert other.returns.tolist() == overlapped.returns.tolist()
        assert other.lengths.tolist() == overlapped.lengths.tolist()
        assert other.outcomes.keys() == overlapped.outcomes.keys()
        for name, values in other.outcomes.items():
            assert values.tolist() == overlapped.outcomes[name].tolist()


def make_image_model() -> SequenceModel:
    """Returns a model with the observations of `Noise`."""
    torch.manual_seed(3)
    env = Noise()
    return SequenceModel(MODELS["rate"], env.observation_space, env.action_space).eval()


def test_simulators_step_while_the_policy_computes() -> None:
    """The simulators of one group step before those of the other group are waited for."""
    calls: list[tuple[int, str]] = []

    class Told(Numbers):
        def __init__(self, name: int) -> None:
            super().__init__(3, {})
            self.name = name

        def reset_async(self, **how: Any) -> None:
            self.answer = lambda: self.reset(**how)
            calls.append((self.name, "ask"))

        def step_async(self, actions: Any) -> None:
            self.answer = lambda: self.step(actions)
            calls.append((self.name, "ask"))

        def step_wait(self) -> Any:
            calls.append((self.name, "wait"))
            return self.answer()

        reset_wait = step_wait

    result = rollout([Punctual(3), Punctual(3)], [Told(0), Told(1)], range(20))
    assert result.lengths.tolist() == [1 + seed % 5 for seed in range(20)]
    turns = [name for name, what in calls if what == "wait"]
    assert turns[:10] == [0, 1] * 5
    for index, (name, what) in enumerate(calls[:20]):
        if what == "wait":  # the other group is stepping
            others = [what for other, what in calls[:index] if other != name]
            assert others[-1] == "ask"


@pytest.mark.parametrize("name", ["rate", "dtxl", "dt"])
@pytest.mark.parametrize("method", ["argmax", "sample"])
def test_the_number_of_rows_does_not_change_results(name: str, method: Any) -> None:
    """Associative Retrieval, whose actions depend on memory; episodes of 3 to 12 steps."""
    make_vector = lambda rows, length: RetrievalVector(rows, RetrievalOptions(), (3, 12))  # noqa: E731
    spec = get_environment("retrieval").spec
    torch.manual_seed(6)
    model = SequenceModel(MODELS[name], spec.observation_space, spec.action_space).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))

    def play(rows: int) -> RolloutResult:
        policy = Policy(model, num_envs=rows, target_return=1.0, decoding=Decoding(method))
        return rollout([policy], [make_vector(rows, 12)], range(100))

    all_at_once, few = play(100), play(7)
    assert np.array_equal(few.returns, all_at_once.returns)
    assert np.array_equal(few.lengths, all_at_once.lengths)
    assert np.array_equal(few.outcomes["cue"], all_at_once.outcomes["cue"])
    assert len(set(few.lengths.tolist())) > 3


def test_a_hundred_mazes_are_equal_in_seven_rows() -> None:
    entry = entry_of(lambda rows, length: TMazeVector(rows, (5, length)))
    model, config = make_model(), EvaluationConfig(return_to_go="decrease", episodes=100)
    whole, part = (
        evaluate(model, entry, replace(config, num_envs=rows), lengths=[15], first_seed=0)
        for rows in (None, 7)
    )
    assert part == whole
    assert whole[0]["steps"] < 14


def test_the_number_of_rows_is_that_of_the_settings_or_the_environment() -> None:
    made: list[tuple[int, int]] = []

    class Closing(TMazeVector):
        closings = 0

        def close_extras(self, **_: Any) -> None:
            Closing.closings += 1

    def make_vector(rows: int, length: int) -> TMazeVector:
        made.append((rows, length))
        return Closing(rows, length)

    model, config = make_model(), EvaluationConfig(return_to_go="decrease", episodes=6)
    small, large = entry_of(make_vector, num_envs=4), entry_of(make_vector, num_envs=9)
    for entry, settings in (
        (entry_of(make_vector), config),
        (small, config),
        (large, config),
        (small, replace(config, num_envs=2)),
    ):
        evaluate(model, entry, settings, lengths=[5, 7], first_seed=0)
    assert made == [(rows, length) for rows in (6, 4, 6, 2) for length in (5, 7)]
    assert Closing.closings == 8
    (row,) = evaluate(
        model, small, config, lengths=[5], first_seed=0, episodes=3, make_vector=make_vector
    )
    assert row["episodes"] == 3
    assert made[-1] == (3, 5)
    assert Closing.closings == 8  # the caller closes it


def test_progress_grows_to_one() -> None:
    told: list[tuple[int, float]] = []
    config = EvaluationConfig(return_to_go="decrease", episodes=9, num_envs=4)
    evaluate(
        make_model(),
        get_environment("tmaze"),
        config,
        lengths=[6, 9],
        first_seed=0,
        on_progress=lambda *news: told.append(news),
    )
    for length in (6, 9):
        shares = [share for at, share in told if at == length]
        assert shares[0] == 0  # at once, because the first step may be slow
        assert all(0 < share <= 1 for share in shares[1:])
        assert shares[-1] == 1


@pytest.mark.parametrize("method", ["argmax", "sample"])
@pytest.mark.parametrize("training", [True, False])
def test_evaluation_is_repeatable_and_changes_no_state(method: Any, training: bool) -> None:
    model = make_model()
    model.train(training)
    config = EvaluationConfig(
        return_to_go="decrease", episodes=10, num_envs=4, decoding=Decoding(method=method)
    )
    random_state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    entry = get_environment("tmaze")
    score = lambda: evaluate(model, entry, config, lengths=[5, 9], first_seed=3)  # noqa: E731
    first = score()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(module.training == training for module in model.modules())
    assert torch.get_num_threads() == threads
    assert score() == first
    assert [row["length"] for row in first] == [5, 9]


def test_the_target_return_of_the_settings_overrides_the_environment(monkeypatch: Any) -> None:
    import trainers.policies

    targets = []

    class Recording(Policy):
        def __init__(self, *args: Any, **settings: Any) -> None:
            targets.append(settings["target_return"])
            super().__init__(*args, **settings)

    monkeypatch.setattr(trainers.policies, "Policy", Recording)
    entry, model = get_environment("tmaze"), make_model()
    for target in (None, 0.0, 0.5):
        config = EvaluationConfig(return_to_go="decrease", episodes=2, target_return=target)
        evaluate(model, entry, config, lengths=[4], first_seed=0)
    assert targets == [1.0, 0.0, 0.5]


def test_success_under_its_alternative_name() -> None:
    rows, is_success = np.array([True, True, False]), np.array([True, False, True])
    ((name, (told, known)),) = outcomes_in({"is_success": is_success}, rows).items()
    assert (name, told.tolist(), known.all()) == ("success", [1.0, 0.0], True)
    both = outcomes_in({"is_success": is_success, "success": ~is_success}, rows)
    assert both["success"][0].tolist() == [0.0, 1.0]
