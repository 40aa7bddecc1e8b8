"""Scales of the components of observations and actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from rate.architecture import make_config
from rate.config import Decoding
from rate.encoders import VectorEncoder, make_encoder
from rate.errors import ConfigError, WeightsError
from rate.heads import ContinuousHead, make_head
from rate.policy import Policy
from rate.scales import LEAST, WIDEST, box_scale, unit_of
from rate.weights import SavedModel, load_model, save_model
from tests.factories import SPACES, make_batch, make_model, make_spec

NAN, INF = float("nan"), float("inf")
MIXED = Box(
    np.array([-1, 0, -0.01, -np.inf, 0, 5, -3e38], np.float32),
    np.array([1, 1000, 0.01, np.inf, np.inf, 5, 3e38], np.float32),
)


def column(*values: float) -> Tensor:
    """One component's values as data have them, in float32."""
    return torch.tensor(values, dtype=torch.float32)


def one_step(value: float) -> Tensor:
    """Half of the data at a value, half of them one step of float32 above."""
    low = np.float32(value)
    return torch.tensor([low, np.nextafter(low, np.float32(np.inf))] * 50)


STILL = {
    "constant": column(0.3, 0.3, 0.3),
    "constant whose mean was rounded": column(*[0.1] * 97),
    "one step of float32": one_step(0.1),
    "one step at a large offset": one_step(1e6),
    "one step at a negative offset": one_step(-3e4),
    "one step at a huge offset": one_step(1e12),
    "noise of a simulator at rest": 1e-9 * torch.randn(100),
    "nothing but zeros": torch.zeros(5),
}


@pytest.mark.parametrize("name", STILL)
def test_nearly_constant_components_are_not_scaled_up(name: str) -> None:
    values = STILL[name].double()
    mean, std = (part.float()[None] for part in (values.mean(), values.std(correction=0)))
    encoder = make_encoder(Box(-1, 1, (1,)), 4)
    assert isinstance(encoder, VectorEncoder)
    assert encoder.set_normalisation(mean, std).all()
    seen = (STILL[name] - encoder.mean) / encoder.std
    assert seen.abs().max() <= 1
    away = 0.1 + 1e-5 * mean.abs()  # where a rollout may come to
    assert away / encoder.std <= 11


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (1e3, 0.5), (0.0, 2e-3), (-5.0, 1e5), (1e6, 30.0)]
)
def test_components_are_divided_by_their_standard_deviation(mean: float, std: float) -> None:
    assert unit_of(column(mean), column(std), LEAST).tolist() == column(std).tolist()


def test_a_small_deviation_is_raised_to_the_floor_for_observations_alone() -> None:
    mean, std = column(0.0, 0.0), column(1e-5, 0.5)
    assert unit_of(mean, std, LEAST).tolist() == column(LEAST, 0.5).tolist()
    assert unit_of(mean, std).tolist() == std.tolist()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0, NAN], [1.0, 1.0], "centre of component 1 is nan"),
        ([INF, 0.0], [1.0, 1.0], "centre of component 0 is inf"),
        ([0.0, 0.0], [1.0, -2.0], "spread of component 1 is -2"),
        ([0.0, 0.0], [NAN, 1.0], "spread of component 0 is nan"),
        ([0.0, 0.0], [1.0, INF], "spread of component 1 is inf"),
    ],
)
def test_invalid_statistics_are_refused(mean: list[float], std: list[float], message: str) -> None:
    encoder = make_encoder(Box(-1, 1, (2,)), 4)
    head = make_head(Box(-np.inf, np.inf, (2,)), 4)
    assert isinstance(encoder, VectorEncoder)
    assert isinstance(head, ContinuousHead)
    for take in (encoder.set_normalisation, head.set_spread):
        with pytest.raises(ValueError, match=message):
            take(torch.tensor(mean), torch.tensor(std))
    assert encoder.std.tolist() == head.unit.tolist() == [1, 1]


def test_bounds_give_a_middle_and_half_a_range() -> None:
    centre, unit, bounded = box_scale(MIXED)
    assert bounded.tolist() == [True, True, True, False, False, True, False]
    expected = [0, 500, 0, 0, 0, 5, 0], [1, 500, 0.01, 1, 1, 1, 1]
    torch.testing.assert_close(centre, column(*expected[0]))
    torch.testing.assert_close(unit, column(*expected[1]))
    wide = Box(np.float32([-WIDEST]), np.float32([WIDEST]))
    assert box_scale(wide)[2].all()
    half = Box(np.float32([-np.inf]), np.float32([1]))
    assert [part.tolist() for part in box_scale(half)] == [[0.0], [1.0], [False]]


def test_components_of_different_ranges_have_equal_weight() -> None:
    head = make_head(MIXED, 8)
    assert isinstance(head, ContinuousHead)
    head.set_spread(column(9, 9, 9, -40, 7, 9, 0), column(8, 8, 8, 1e-5, 3e4, 8, 2))
    assert head.unit[:3].tolist() == box_scale(MIXED)[1][:3].tolist()  # bounds stay bounds
    torch.testing.assert_close(head.unit[3:], column(1, 3e4, 1, 2))
    for index, unit in enumerate(head.unit.tolist()):
        wrong = head.centre.clone()
        wrong[index] += 0.3 * unit
        loss = head.loss(wrong[None, None], head.centre[None, None])
        torch.testing.assert_close(loss, torch.tensor([[0.09 / 7]]), rtol=1e-3, atol=0)
        assert not head.correct(wrong[None], head.centre[None]).item()


def test_predictions_are_in_the_units_of_the_environment_and_learn() -> None:
    head = make_head(MIXED, 8)
    assert isinstance(head, ContinuousHead)
    head.set_spread(column(0, 0, 0, -40, 7, 0, 0), column(1, 1, 1, 2, 3e4, 1, 2))
    predictions = head(torch.randn(4, 5, 8))
    head.loss(predictions, torch.zeros(4, 5, 7)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    actions = head.decode(predictions, Decoding()).detach().numpy()
    assert all(MIXED.contains(action) for action in actions.reshape(-1, 7))
    assert (actions[..., 5] == 5).all()
    assert abs(actions[..., 3].mean() + 40) < 5
    assert predictions[..., 1].min() > 0


@pytest.mark.parametrize("bounded", [True, False])
def test_a_small_component_is_learnt_as_well_as_a_large_one(bounded: bool) -> None:
    """Behind shared layers the raw error of the small one was 4 to 10 times larger."""
    ranges = torch.tensor([50.0, 0.02])
    rng = torch.Generator().manual_seed(0)
    seen = torch.randn(256, 6, generator=rng)
    wanted = 0.8 * ranges * (2 * seen[:, [0, 2]] * seen[:, [1, 3]]).sin()
    torch.manual_seed(0)
    box = Box(-ranges.numpy(), ranges.numpy()) if bounded else Box(-np.inf, np.inf, (2,))
    head = make_head(box, 8)
    assert isinstance(head, ContinuousHead)
    if not bounded:
        head.set_spread(wanted.mean(0), wanted.std(0))
    layers = (nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
    model = nn.Sequential(*layers, head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(250):
        optimizer.zero_grad()
        head.loss(model(seen), wanted).mean().backward()
        optimizer.step()
    large, small = ((model(seen) - wanted).abs().mean(0) / ranges).tolist()
    assert max(large, small) < 0.25
    assert 0.5 < small / large < 2


def test_actions_within_one_are_trained_as_before() -> None:
    head = make_head(Box(-1, 1, (3,)), 8)
    hidden, actions = torch.randn(2, 5, 8), 2 * torch.rand(2, 5, 3) - 1
    predictions = head(hidden)
    torch.testing.assert_close(predictions, head.linear(hidden).tanh())
    expected = (predictions - actions).square().mean(-1)
    assert torch.equal(head.loss(predictions, actions), expected)
    assert sorted(head.state_dict()) == ["linear.bias", "linear.weight"]


@pytest.mark.parametrize("spaces", ["matrix_to_bounded", "discrete_to_unbounded"])
def test_past_actions_have_the_units_of_predicted_actions(spaces: str) -> None:
    model = make_model("rate", spaces)
    model.set_action_spread(column(3.0, -2.0), column(10.0, 0.1))
    assert isinstance(model.head, ContinuousHead)
    assert model.tokenizer.action.std.tolist() == model.head.unit.tolist()
    assert model.tokenizer.action.mean.tolist() == model.head.centre.tolist()
    bounded = spaces == "matrix_to_bounded"
    assert model.head.unit.tolist() == column(*((1.5, 0.25) if bounded else (10, 0.1))).tolist()


def test_policies_use_the_scales_of_the_data(tmp_path: Path) -> None:
    name = "discrete_to_unbounded"
    model = make_model("rate", name)
    model.set_action_spread(column(1e3, -1e-3), column(50.0, 1e-4))
    save_model(SavedModel(model, make_spec(name)), tmp_path)
    loaded = load_model(tmp_path).model
    policies = [Policy(each, num_envs=3, target_return=1.0) for each in (model, loaded)]
    actions = [policy.act(np.array([2, 3, 4])) for policy in policies]
    assert np.array_equal(*actions)
    assert (np.abs(actions[0][:, 0] - 1e3) < 1e3).all()
    assert (np.abs(actions[0][:, 1]) < 0.01).all()


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, INF])
@pytest.mark.parametrize("name", ["head.unit", "tokenizer.action.std"])
def test_an_invalid_saved_scale_is_refused(name: str, value: float, tmp_path: Path) -> None:
    spaces = "discrete_to_unbounded"
    model = make_model("rate", spaces)
    model.get_buffer(name)[1] = value
    save_model(SavedModel(model, make_spec(spaces)), tmp_path)
    with pytest.raises(WeightsError, match=rf"{name} has a scale"):
        load_model(tmp_path)


@pytest.mark.parametrize("scale", [0.0, -1.0, NAN, INF, -INF, 1e-30])
def test_an_invalid_given_scale_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=r"model\.return_scale is .*finite number above 0"):
        make_config(return_scale=scale)
    with pytest.raises(ConfigError, match=r"decoding\.temperature is .*finite number above 0"):
        Decoding("sample", temperature=scale)


@pytest.mark.parametrize("name", ["image_chw_to_discrete", "vector_to_discrete"])
def test_discrete_actions_have_no_scale(name: str) -> None:
    model = make_model("rate", name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.set_action_spread(torch.zeros(4), torch.ones(4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    scales = [key for key in before if key.endswith((".std", ".unit"))]
    assert scales == (["tokenizer.observation.std"] if "vector" in name else [])


def test_contrast_of_a_single_pixel_is_finite() -> None:
    encoder = make_encoder(Box(0, 255, (1, 1, 1), np.uint8), 4, image_contrast=True)
    assert encoder(torch.full((1, 3, 1, 1, 1), 7, dtype=torch.uint8)).isfinite().all()


def test_every_space_still_predicts() -> None:
    for name in SPACES:
        model = make_model("rate", name)
        assert model(make_batch(model))[0].isfinite().all()
