"""The policy: returns-to-go, resets, sampling and modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rate.config import Decoding
from rate.decoders.segments import SegmentDecoder
from rate.errors import ConfigError
from rate.model import SequenceModel
from rate.policy import Policy
from tests.factories import MODELS, SPACES, K, draw, make_model, noisy, twin

ENVS = 3
Array = NDArray[Any]


def observe(model: SequenceModel, seed: int) -> Any:
    values = draw(model.observation_space, ENVS, seed=seed)
    if isinstance(values, dict):
        return {key: value.numpy() for key, value in values.items()}
    return values.numpy()


def act_out(model: SequenceModel, steps: int = 2 * K + 1, **kwargs: Any) -> Array:
    """The actions of a policy over `steps` steps, `(steps, B, ...)`."""
    policy = Policy(model, num_envs=ENVS, target_return=1.0, **kwargs)
    actions = []
    for step in range(steps):
        rewards = None if step == 0 else np.full(ENVS, 0.1 * step)
        actions.append(policy.act(observe(model, step), rewards))
    return np.stack(actions)


@pytest.mark.parametrize("spaces", SPACES)
def test_actions_are_in_the_action_space(spaces: str) -> None:
    model = make_model("rate", spaces)
    for action in act_out(model).reshape(-1, *model.action_space.shape):
        item = action if model.action_space.shape else action[()]
        assert model.action_space.contains(item)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_have_the_spaces_type(dtype: Any) -> None:
    model = make_model("rate", "matrix_to_bounded")
    space = model.action_space
    model.action_space = type(space)(-1, 1, (2,), dtype)
    assert act_out(model).dtype == dtype


def test_returns_to_go_are_kept_per_row() -> None:
    model = make_model("rate")
    policy = Policy(model, num_envs=ENVS, target_return=5.0)
    policy.act(observe(model, 0))
    assert policy.returns_to_go[:, 0].tolist() == [5, 5, 5]
    policy.act(observe(model, 1), np.array([1.0, 0.0, -2.0]))
    assert policy.returns_to_go[:, 0].tolist() == [4, 5, 7]
    policy.reset(np.array([False, True, False]))
    assert policy.returns_to_go[:, 0].tolist() == [4, 5, 7]
    policy.act(observe(model, 2), np.array([0.5, 100.0, 0.5]))  # 100 was the old episode's
    assert policy.returns_to_go[:, 0].tolist() == [3.5, 5, 6.5]
    assert policy.timesteps.tolist() == [3, 1, 3]
    policy.act(observe(model, 3), np.ones(ENVS, dtype=np.int64))
    assert policy.returns_to_go[:, 0].tolist() == [2.5, 4, 5.5]
    policy.reset()
    assert policy.returns_to_go[:, 0].tolist() == [5, 5, 5]
    assert policy.timesteps.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", MODELS)
def test_a_reset_row_forgets_and_the_others_do_not(name: str) -> None:
    model = make_model(name)
    found, others = [], []
    for play_before in (0, K + 1):
        policy = Policy(model, num_envs=ENVS, target_return=1.0)
        for step in range(play_before):
            policy.act(observe(model, 50 + step), np.ones(ENVS) if step else None)
        policy.reset(np.array([True, False, False]))
        outputs = []
        inner = policy.decoder.step

        def watched(*args: Any, inner: Any = inner, outputs: Any = outputs) -> torch.Tensor:
            outputs.append(inner(*args))
            return outputs[-1]

        policy.decoder.step = watched
        for step in range(K + 2):
            policy.act(observe(model, step), np.ones(ENVS))
        found.append(torch.stack(outputs)[:, 0])
        others.append(torch.stack(outputs)[:, 1])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    assert not torch.allclose(others[0], others[1], atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["argmax", "sample"])
def test_acting_leaves_the_global_random_state_alone(name: str, method: Any) -> None:
    model = noisy(make_model(name)).train()
    before = torch.get_rng_state()
    act_out(model, decoding=Decoding(method))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", MODELS)
def test_acting_is_in_evaluation_mode_and_restores_the_mode(name: str) -> None:
    """Dropout and memory noise are off at every step and in every reset; the mode is put back."""
    model = make_model(name)
    other = noisy(model)
    decoding = Decoding("sample", temperature=3.0)
    expected = act_out(model, decoding=decoding)
    assert not model.training
    for training in (True, False):
        other.train(training)
        assert np.array_equal(act_out(other, decoding=decoding), expected)
        assert all(module.training == training for module in other.modules())


def test_the_mode_is_restored_after_an_error() -> None:
    model = make_model("rate").train()
    policy = Policy(model, num_envs=ENVS, target_return=1.0)

    def fail(*_: Any) -> None:
        raise RuntimeError("in the midst of a step")

    policy.decoder.step = fail
    with pytest.raises(RuntimeError, match="midst"):
        policy.act(observe(model, 0))
    assert model.training


def test_samples_depend_on_the_seed() -> None:
    model, decoding = make_model("rate"), Decoding("sample", temperature=5.0)
    first = act_out(model, decoding=decoding, seed=1)
    assert np.array_equal(first, act_out(model, decoding=decoding, seed=1))
    assert not np.array_equal(first, act_out(model, decoding=decoding, seed=2))


def test_samples_depend_on_the_episode_and_not_on_other_rows() -> None:
    model, decoding = make_model("rate"), Decoding("sample", temperature=5.0)
    observations = [observe(model, step) for step in range(2 * K + 1)]

    def sample(rows: list[int], episodes: list[int] | None) -> Array:
        policy = Policy(model, num_envs=len(rows), target_return=1.0, decoding=decoding)
        policy.reset(episodes=episodes)
        earned = np.zeros(len(rows))
        return np.stack([policy.act(observation[rows], earned) for observation in observations])

    together = sample([0, 1, 2], [7, 8, 7])
    assert np.array_equal(sample([1], [8])[:, 0], together[:, 1])
    assert np.array_equal(sample([2, 0], [7, 7]), together[:, [2, 0]])
    assert not np.array_equal(sample([1], [9])[:, 0], together[:, 1])
    assert not np.array_equal(sample([0, 1, 2], None), sample([0, 1, 2], [3, 4, 4]))


def test_returned_actions_are_copies() -> None:
    model = make_model("rate", "matrix_to_bounded")
    results = []
    for meddle in (False, True):
        policy = Policy(model, num_envs=ENVS, target_return=1.0)
        for step in range(3):
            actions = policy.act(observe(model, step), np.zeros(ENVS) if step else None)
            results.append(actions.copy())
            if meddle:
                actions[:] = 0
    assert np.array_equal(results[2], results[5])


def test_continuous_actions_refuse_sampling() -> None:
    model = make_model("rate", "matrix_to_bounded")
    with pytest.raises(ConfigError, match=r"decoding\.method"):
        act_out(model, decoding=Decoding("sample"))


def test_missing_rewards_are_refused() -> None:
    model = make_model("rate")
    policy = Policy(model, num_envs=ENVS, target_return=1.0)
    policy.act(observe(model, 0))
    with pytest.raises(ValueError, match=r"rewards are missing.*act\(observations, rewards\)"):
        policy.act(observe(model, 1))
    policy.reset(np.array([True, True, False]))
    with pytest.raises(ValueError, match="rewards are missing"):
        policy.act(observe(model, 1))
    policy.reset()
    policy.act(observe(model, 0))
    # Where returns-to-go are not looked at, nothing is missing.
    blind = twin(model, condition_on_return=False)
    policy = Policy(blind, num_envs=ENVS, target_return=1.0)
    for step in range(3):
        policy.act(observe(blind, step))


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (1.0, r"rewards have shape \(\), but the policy needs \(3,\)"),
        ([[1.0], [0.0], [2.0]], r"rewards have shape \(3, 1\), but the policy needs \(3,\)"),
        ([1.0, 0.0], r"rewards have shape \(2,\), but the policy needs \(3,\)"),
        ([1.0, np.nan, np.inf], r"rewards of the rows \[1, 2\] .* are \[nan, inf\]"),
    ],
)
def test_rewards_of_wrong_shape_or_not_finite_are_refused(rewards: Any, message: str) -> None:
    model = make_model("rate")
    policy = Policy(model, num_envs=ENVS, target_return=1.0)
    policy.act(observe(model, 0))
    with pytest.raises(ValueError, match=message):
        policy.act(observe(model, 1), np.array(rewards))
    assert policy.returns_to_go[:, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("spaces", SPACES)
def test_observations_of_wrong_shape_are_refused(spaces: str) -> None:
    """Those of one environment, of too many rows, and of another kind altogether."""
    model = make_model("rate", spaces)
    policy, alone = (Policy(model, num_envs=n, target_return=1.0) for n in (ENVS, 1))
    seen = observe(model, 0)
    first = {key: part[0] for key, part in seen.items()} if isinstance(seen, dict) else seen[0]
    for wrong, who, message in (
        (first, policy, "shape"),
        (first, alone, r"batch axis: observation\[None\]"),
        (seen, alone, "shape"),
        (next(iter(seen.values())) if isinstance(seen, dict) else {"": seen}, policy, "dictionary"),
    ):
        with pytest.raises(ValueError, match=message):
            who.act(wrong)
    policy.act(seen)


def test_unknown_keys_and_dtypes_are_refused() -> None:
    model = make_model("rate", "dictionary_to_bounded")
    policy = Policy(model, num_envs=ENVS, target_return=1.0)
    seen = observe(model, 0)
    with pytest.raises(ValueError, match=r"the keys image, speed, but the model needs .* task"):
        policy.act({key: seen[key] for key in ("image", "speed")})
    with pytest.raises(ValueError, match=r"observations\['image'\] are float32, but .* uint8"):
        policy.act({**seen, "image": seen["image"].astype(np.float32) / 255})
    policy.act(seen)


@pytest.mark.parametrize("target", [np.nan, np.inf, -np.inf])
def test_a_target_return_that_is_not_finite_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_return is"):
        Policy(make_model("rate"), num_envs=1, target_return=target)


def test_rewards_are_optional_where_they_are_not_used() -> None:
    """Rewards of rows that were all just reset have no say, whatever they are."""
    model = make_model("rate")
    policy = Policy(model, num_envs=ENVS, target_return=1.0)
    policy.act(observe(model, 0), np.full(ENVS, np.nan))
    assert policy.returns_to_go[:, 0].tolist() == [1, 1, 1]


def test_acting_builds_no_graph() -> None:
    model = make_model("rate_cache")
    policy = Policy(model, num_envs=ENVS, target_return=1.0)
    for step in range(2 * K + 1):
        policy.act(observe(model, step), np.zeros(ENVS))
    decoder = policy.decoder.backbone
    assert isinstance(decoder, SegmentDecoder)
    for part in (decoder, decoder.kv_cache, decoder.state):
        tensors = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        assert tensors
        assert not any(tensor.requires_grad for tensor in tensors)


def test_autocast_around_it_changes_nothing() -> None:
    model = make_model("rate")
    expected = act_out(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(act_out(model), expected)
