"""The collector: what an unroll holds, and that the learner sees what the actor saw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import MODELS, make_model
from trainers.config_online import OnlineConfig
from trainers.errors import TrainingError
from trainers.registry import get_environment
from trainers.sources.exploration import Exploration
from trainers.sources.unrolls import UnrollCollector

STEPS, ROWS, LENGTH = 11, 3, 16  # an episode has 17 steps


def collector_of(
    backbone: str = "lstm",
    kind: Any = "softmax",
    environment: str = "memory_length",
    **changes: Any,
) -> UnrollCollector:
    record = get_environment(environment)
    torch.manual_seed(0)
    config = replace(MODELS[backbone], condition_on_return=False)
    model = SequenceModel(config, record.spec.observation_space, record.spec.action_space)
    settings = OnlineConfig()
    return UnrollCollector(
        record.make_vector(ROWS, LENGTH),
        model,
        STEPS,
        Exploration(kind, settings, model.head),
        settings.epsilon_at,
        seed=1,
        **changes,
    )


def three(collector: UnrollCollector) -> list[Batch]:
    return [collector.collect() for _ in range(3)]


@pytest.mark.parametrize("backbone", ["lstm", "rate_cache", "trxl", "elmur", "mamba2", "own"])
def test_the_learner_sees_what_the_actor_saw(backbone) -> None:
    """Its log-probabilities of the actions are those they were sampled with."""
    collector = collector_of(backbone, with_behaviour=True)
    for batch in three(collector):
        model = collector.model.eval()
        with torch.no_grad():
            log_policy = model(batch)[0].log_softmax(-1)
        found = log_policy.gather(-1, batch.actions[..., None])[..., 0]
        torch.testing.assert_close(
            found[batch.mask], batch.behaviour[batch.mask], rtol=1e-4, atol=1e-4
        )


def test_unrolls_continue_and_stop_at_the_end_of_an_episode() -> None:
    first, second, third = three(collector_of())
    assert first.num_steps == STEPS + 1
    assert first.mask.sum(1).tolist() == [STEPS] * ROWS
    assert first.following[:, STEPS].all()  # the episode goes on
    left = LENGTH + 1 - STEPS
    assert second.mask.sum(1).tolist() == [left] * ROWS
    assert torch.equal(second.observations[:, 0], first.observations[:, STEPS])
    assert second.timesteps[:, :left].tolist() == [list(range(STEPS, LENGTH + 1))] * ROWS
    assert second.terminated[:, left - 1].all()
    assert not second.following.any()
    assert (second.rewards[:, left - 1].abs() == 1).all()
    assert (third.timesteps[:, 0] == 0).all()
    assert not torch.equal(third.observations, first.observations)
    for batch in (first, second, third):
        hidden = ~(batch.mask | batch.following)
        assert not batch.observations[hidden].any()
        assert not batch.actions[~batch.mask].any()


def test_rows_keep_their_memory_between_unrolls_and_lose_it_between_episodes() -> None:
    first, second, third = three(collector_of())
    assert not any(part.any() for part in first.initial.values())
    assert all(part.abs().sum() > 0 for part in second.initial.values())
    assert not any(part.any() for part in third.initial.values())


def test_with_a_burn_in_unrolls_share_steps() -> None:
    """Each step is learnt from once; the state is that before the shared steps."""
    collector = collector_of("rate_cache", overlap=3)
    first, second, third = three(collector)
    new = STEPS - 3
    assert first.mask.sum(1).tolist() == [new] * ROWS
    assert second.timesteps[0].tolist() == [*range(new - 3, 2 * new + 1)]
    assert third.mask.sum(1).tolist() == [3 + LENGTH + 1 - 2 * new] * ROWS
    assert third.timesteps[0, :3].tolist() == [*range(2 * new - 3, 2 * new)]
    for before, after, at in ((first, second, new - 3), (second, third, STEPS - 3)):
        for name in ("actions", "rewards", "observations"):
            shared = getattr(before, name)[:, at : at + 3]
            assert torch.equal(getattr(after, name)[:, :3], shared)
        known = before.mask & (torch.arange(STEPS + 1) < at)
        with torch.no_grad():
            state = collector.model.eval().features(replace(before, mask=known, following=None))[1]
        for name, part in state.tensors().items():
            torch.testing.assert_close(part, after.initial[name], rtol=1e-5, atol=1e-5)
    fourth = collector.collect()
    assert fourth.mask.sum(1).tolist() == [new] * ROWS
    assert (fourth.timesteps[:, 0] == 0).all()


@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize("kind", ["epsilon", "softmax"])
def test_actions_depend_on_the_episode_alone(kind, overlap) -> None:
    """The same weights act alike again, and a collector that was saved goes on alike."""
    whole, parts, again = (collector_of(kind=kind, overlap=overlap) for _ in range(3))
    expected = three(whole)
    parts.collect()
    again.load_state_dict(parts.state_dict())
    for batch in expected[1:]:
        found = again.collect()
        for mine, other in zip(found.tensors(), batch.tensors(), strict=True):
            assert torch.equal(mine, other)
    assert again.account.metrics() == whole.account.metrics()


def test_an_environment_that_takes_another_course_is_told() -> None:
    collector = collector_of()
    collector.collect()
    state = collector.state_dict()
    state["rows"]["observations"][0] = state["rows"]["observations"][0] + 1
    with pytest.raises(TrainingError, match="take another course"):
        collector_of().load_state_dict(state)


def test_epsilon_is_the_share_of_random_actions() -> None:
    exploration = collector_of(kind="epsilon").exploration
    predictions = torch.zeros(20_000, 2)
    predictions[:, 1] = 1.0
    keys = np.arange(20_000).astype(np.uint64)
    steps = torch.zeros(20_000, dtype=torch.int64)
    for epsilon in (0.0, 0.4, 1.0):
        found = exploration.actions(predictions, keys, steps, epsilon)
        assert float((found == 0).float().mean()) == pytest.approx(epsilon / 2, abs=0.01)


def test_gaussian_noise_has_its_deviation() -> None:
    model = make_model("lstm", "matrix_to_bounded")
    exploration = Exploration("gaussian", OnlineConfig(noise=0.1), model.head)
    middle = model.head.centre.expand(20_000, -1)
    keys = np.arange(20_000).astype(np.uint64)
    found = exploration.actions(middle, keys, torch.zeros(20_000, dtype=torch.int64), 0.0)
    deviation = (found - model.head.centre) / model.head.unit
    torch.testing.assert_close(deviation.mean(0), torch.zeros(2), rtol=0, atol=0.005)
    torch.testing.assert_close(deviation.std(0), torch.full((2,), 0.1), rtol=0, atol=0.005)


def test_a_lost_episode_leaves_no_step(monkeypatch) -> None:
    """The process of a simulator has died: the row waits, and then begins another episode."""
    collector = collector_of()
    plain, calls = collector.rows.env.step, []

    def step(actions: Any) -> Any:
        calls.append(1)
        *found, info = plain(actions)
        restarted = np.array([False, len(calls) == 3, False])
        return *found, {**info, "restarted": restarted}

    monkeypatch.setattr(collector.rows.env, "step", step)
    first, second = collector.collect(), collector.collect()
    assert first.mask.sum(1).tolist() == [STEPS, 0, STEPS]
    assert not first.following[1].any()
    assert second.timesteps[:, 0].tolist() == [STEPS, 0, STEPS]


def test_numbers_that_are_not_finite_are_told(monkeypatch) -> None:
    collector = collector_of()
    plain = collector.rows.env.step
    monkeypatch.setattr(
        collector.rows.env, "step", lambda a: (plain(a)[0], np.array([0, np.nan, 0]), *plain(a)[2:])
    )
    with pytest.raises(TrainingError, match="a reward that is not finite at step 1 of the episode"):
        collector.collect()
