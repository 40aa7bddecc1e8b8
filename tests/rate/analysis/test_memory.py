"""Drift, rank and survival say what they should of memories whose behaviour is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rate.analysis.memory import effective_rank, inspect_memory, record
from rate.architecture import make_config
from rate.batch import Batch
from rate.envs.retrieval import RetrievalOptions, RetrievalVector, retrieval_spec
from rate.envs.tmaze import TMAZE_SPEC, TMazeVector
from rate.model import SequenceModel
from rate.policy import Policy

K, EPISODES, LENGTH = 4, 6, 34
TINY: dict[str, Any] = {"context_length": K, "d_model": 16, "num_layers": 1, "num_heads": 2}


def make_model(**changes: Any) -> SequenceModel:
    settings = {**TINY, "num_memory_tokens": 3, **changes}
    settings = {name: value for name, value in settings.items() if value is not None}
    spaces = TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space
    return SequenceModel(make_config(**settings), *spaces).eval()


def make_policy(model: SequenceModel) -> Policy:
    return Policy(model, num_envs=EPISODES, target_return=TMAZE_SPEC.target_return)


def test_the_rank_of_equal_rows_is_one_and_of_orthogonal_rows_their_number() -> None:
    equal = torch.randn(8).expand(5, 8) * torch.arange(1, 6)[:, None]
    assert effective_rank(equal).item() == pytest.approx(1, abs=1e-3)
    assert effective_rank(3 * torch.eye(5, 8)).item() == pytest.approx(5)
    assert effective_rank(torch.zeros(5, 8)).item() == pytest.approx(1)  # and not NaN
    between = effective_rank(torch.randn(2, 7, 5, 8))
    assert between.shape == (2, 7)
    assert ((between > 1) & (between < 5)).all()


def test_a_record_holds_what_was_seen_and_done() -> None:
    policy = make_policy(make_model())
    batch = record(policy, TMazeVector(EPISODES, LENGTH), seed=5)
    steps = batch.num_steps
    assert batch.observations.shape == (EPISODES, steps, 4)
    assert batch.actions.shape == (EPISODES, steps)
    assert batch.mask.all()
    assert batch.episode_end.sum() == EPISODES
    first, _ = TMazeVector(EPISODES, LENGTH).reset(seed=5)
    np.testing.assert_array_equal(batch.observations[:, 0], first)
    assert batch.timesteps[0].tolist() == list(range(steps))


def test_a_record_takes_dictionaries() -> None:
    options = RetrievalOptions(privileged=True)
    spec = retrieval_spec(options)
    config = make_config(**TINY, num_memory_tokens=3)
    model = SequenceModel(config, spec.observation_space, spec.action_space).eval()
    policy = Policy(model, num_envs=EPISODES, target_return=1.0)
    batch = record(policy, RetrievalVector(EPISODES, options, 6), seed=5)
    assert isinstance(batch.observations, dict)
    assert batch.observations["privileged"].shape == (EPISODES, batch.num_steps, 2)
    first, _ = RetrievalVector(EPISODES, options, 6).reset(seed=5)
    for key, part in first.items():
        np.testing.assert_array_equal(batch.observations[key][:, 0], part)


def test_a_teacher_forced_pass_over_a_record_repeats_its_actions() -> None:
    model = make_model(valve="cross_attention")
    batch = record(make_policy(model), TMazeVector(EPISODES, LENGTH), seed=5)
    state, actions = None, []
    for start in range(0, batch.num_steps, K):
        predictions, state = model(batch.steps(start, start + K), state)
        actions.append(predictions.argmax(-1))
    assert torch.equal(torch.cat(actions, dim=1), batch.actions)


def test_a_report_has_a_value_per_segment_and_per_noise() -> None:
    model = make_model(valve="cross_attention")
    batch = record(make_policy(model), TMazeVector(EPISODES, LENGTH), seed=5)
    report = inspect_memory(model, batch, noise=(0.0, 1.0, 100.0))
    segments = -(-batch.num_steps // K)
    assert len(report.drift) == segments - 1
    assert len(report.rank) == segments
    assert list(report.survival) == [0.0, 1.0, 100.0]
    assert report.survival[0.0] == 1.0  # no noise, no change
    assert all(0 <= share <= 1 for share in report.survival.values())
    assert all(1 <= rank <= 3 + 1e-4 for rank in report.rank)
    assert all(np.isfinite(report.drift))
    assert inspect_memory(model, batch, noise=(1.0,)).survival[1.0] == report.survival[1.0]


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,))])
def test_actions_of_any_kind_survive_or_not(space: spaces.Space[Any]) -> None:
    parts = {"numbers": spaces.Box(-1, 1, (3,)), "text": spaces.Discrete(4)}
    config = make_config(**TINY, num_memory_tokens=3)
    model = SequenceModel(config, spaces.Dict(parts), space).eval()
    steps = 8 * K
    observations = {
        "numbers": torch.randn(EPISODES, steps, 3),
        "text": torch.randint(4, (EPISODES, steps)),
    }
    timesteps = torch.arange(steps).expand(EPISODES, -1)
    batch = Batch(
        observations=observations,
        actions=torch.zeros(EPISODES, steps, 2).to(torch.from_numpy(space.sample()).dtype),
        returns_to_go=torch.ones(EPISODES, steps, 1),
        timesteps=timesteps,
        mask=torch.ones(EPISODES, steps, dtype=torch.bool),
        rewards=torch.zeros(EPISODES, steps),
        terminated=timesteps == steps - 1,
        truncated=torch.zeros(EPISODES, steps, dtype=torch.bool),
    )
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(20 if parameter.ndim == 2 else 0)  # large, and no bias
    survival = inspect_memory(model, batch, noise=(0.0, 1e4)).survival
    assert survival[0.0] == 1
    assert survival[1e4] < 1


def test_memory_that_reaches_no_action_survives_any_noise() -> None:
    model = make_model()
    batch = record(make_policy(model), TMazeVector(EPISODES, LENGTH), seed=5)
    with torch.no_grad():
        for block in model.backbone.blocks:
            for parameter in block.attention.parameters():
                parameter.zero_()
    assert inspect_memory(model, batch, noise=(100.0,)).survival[100.0] == 1.0


def test_a_model_without_a_state_is_refused() -> None:
    model = make_model(backbone="window_transformer", num_memory_tokens=None)
    batch = record(make_policy(model), TMazeVector(EPISODES, LENGTH), seed=5)
    with pytest.raises(ValueError, match="carries no state"):
        inspect_memory(model, batch, noise=(1.0,))


def test_a_privileged_state_is_recorded_and_not_shown_to_the_model() -> None:
    spec = retrieval_spec(RetrievalOptions())
    config = make_config(**TINY, num_memory_tokens=3)
    model = SequenceModel(config, spec.observation_space, spec.action_space).eval()
    plain, revealing = (
        record(
            Policy(model, num_envs=EPISODES, target_return=1.0),
            RetrievalVector(EPISODES, RetrievalOptions(privileged=is_shown), 6),
            seed=5,
        )
        for is_shown in (False, True)
    )
    assert plain.privileged is None
    np.testing.assert_array_equal(plain.observations, revealing.observations)
    assert torch.equal(plain.actions, revealing.actions)
    assert revealing.privileged is not None
    assert revealing.privileged.shape == (EPISODES, revealing.num_steps, 2)
