"""Action heads and decoding."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from rate.config import Decoding
from rate.errors import ConfigError
from rate.heads import ContinuousHead, DiscreteHead, MultiDiscreteHead, decode_logits, make_head
from rate.spaces import choices_of

BOUNDED = Box(np.array([-2, 0.5], np.float32), np.array([1, 0.75], np.float32))
GREEDY = Decoding()


def sampled(decoding: Decoding, logits: torch.Tensor, count: int, seed: int = 0) -> torch.Tensor:
    uniforms = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return decode_logits(logits.expand(count, -1), decoding, uniforms)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (3, 2, 5)])
@pytest.mark.parametrize("top_k", [None, 1, 3, 5, 99])
def test_decoding_keeps_leading_axes_and_range(shape: tuple[int, ...], top_k: int | None) -> None:
    logits = torch.randn(shape)
    assert torch.equal(decode_logits(logits, GREEDY), logits.argmax(-1))
    actions = decode_logits(logits, Decoding("sample", top_k=top_k))
    assert actions.shape == shape[:-1]
    assert actions.dtype == torch.int64
    assert ((actions >= 0) & (actions < 5)).all()


def test_a_low_temperature_is_argmax() -> None:
    logits = torch.randn(200, 6)
    cold = Decoding("sample", temperature=1e-4)
    assert torch.equal(decode_logits(logits, cold), logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_samples_follow_the_softmax(temperature: float) -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0])
    counts = sampled(Decoding("sample", temperature), logits, 20_000).bincount(minlength=4)
    expected = (logits / temperature).softmax(-1)
    torch.testing.assert_close(counts / 20_000, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_never_leaves_the_top_k(top_k: int) -> None:
    logits = torch.randn(7)
    found = sampled(Decoding("sample", 10.0, top_k), logits, 2_000).unique()
    assert set(found.tolist()) == set(logits.topk(top_k).indices.tolist())


def test_top_k_is_k_where_logits_tie() -> None:
    assert len(sampled(Decoding("sample", top_k=2), torch.zeros(7), 500).unique()) == 2


def test_top_k_keeps_ratios_of_probabilities() -> None:
    logits = torch.tensor([1.0, 3.0, -5.0, 2.0])
    counts = sampled(Decoding("sample", top_k=2), logits, 20_000).bincount(minlength=4) / 20_000
    expected = torch.tensor([3.0, 2.0]).softmax(-1)
    torch.testing.assert_close(counts[[1, 3]], expected, rtol=0, atol=0.015)


def test_samples_depend_on_the_uniforms_and_not_on_the_global_generator() -> None:
    logits, decoding = torch.zeros(10), Decoding("sample")
    before = torch.get_rng_state()
    first, second = sampled(decoding, logits, 50, seed=3), sampled(decoding, logits, 50, seed=3)
    assert torch.equal(first, second)
    assert not torch.equal(first, sampled(decoding, logits, 50, seed=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_discrete_head() -> None:
    head = make_head(Discrete(4), 8)
    assert isinstance(head, DiscreteHead)
    logits, actions = head(torch.randn(2, 3, 8)), torch.randint(4, (2, 3))
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(
            logits.movedim(-1, 1), actions, reduction="none", label_smoothing=smoothing
        )
        torch.testing.assert_close(head.loss(logits, actions, smoothing), expected)
    assert torch.equal(head.correct(logits, actions), logits.argmax(-1) == actions)
    assert torch.equal(head.decode(logits, GREEDY), logits.argmax(-1))


def test_multi_discrete_head_is_a_head_per_component() -> None:
    head = make_head(MultiDiscrete([3, 2, 4]), 8)
    assert isinstance(head, MultiDiscreteHead)
    logits = head(torch.randn(2, 5, 8))
    assert logits.shape == (2, 5, 9)
    best = torch.stack([part.argmax(-1) for part in logits.split([3, 2, 4], -1)], -1)
    assert torch.equal(head.decode(logits, GREEDY), best)
    assert head.correct(logits, best).all()
    wrong = best.clone()
    wrong[..., 1] = 1 - wrong[..., 1]
    assert not head.correct(logits, wrong).any()
    single = [
        F.cross_entropy(part.flatten(0, 1), wrong[..., i].flatten(), reduction="none")
        for i, part in enumerate(logits.split([3, 2, 4], -1))
    ]
    torch.testing.assert_close(head.loss(logits, wrong), torch.stack(single).sum(0).view(2, 5))


def test_bounded_actions_stay_within_their_bounds() -> None:
    head = make_head(BOUNDED, 8)
    assert isinstance(head, ContinuousHead)
    actions = head.decode(head(1e3 * torch.randn(50, 4, 8)), GREEDY).detach().numpy()
    assert all(BOUNDED.contains(action) for action in actions.reshape(-1, 2))
    assert (np.abs(actions - BOUNDED.low) < 1e-6).any()
    assert (np.abs(actions - BOUNDED.high) < 1e-6).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_continuous_predictions_keep_the_models_precision(dtype: Any) -> None:
    head = make_head(Box(-1, 1, (2,), dtype), 8)
    assert head(torch.randn(2, 3, 8)).dtype == torch.float32


def test_unbounded_actions_are_linear() -> None:
    head = make_head(Box(-np.inf, np.inf, (2,)), 8)
    assert isinstance(head, ContinuousHead)
    hidden = torch.randn(1, 4, 8)
    bias = head(torch.zeros(1, 4, 8))
    torch.testing.assert_close(head(3 * hidden) - bias, 3 * (head(hidden) - bias))
    assert torch.equal(head.decode(head(hidden), GREEDY), head(hidden))


def test_half_bounded_actions_are_linear_and_clamped() -> None:
    head = make_head(Box(np.array([0.0], np.float32), np.array([np.inf], np.float32)), 8)
    predictions = head(10 * torch.randn(1, 50, 8))
    assert (predictions < 0).any()
    assert torch.equal(head.decode(predictions, GREEDY), predictions.clamp(min=0))


def test_continuous_loss_and_score() -> None:
    head = make_head(BOUNDED, 8)
    predictions = torch.tensor([[[0.0, 0.6], [0.0, 0.6]]])
    actions = torch.tensor([[[0.2, 0.61], [0.2, 0.7]]])
    # errors in halves of the ranges: 0.2 / 1.5 with 0.01 / 0.125, and with 0.1 / 0.125
    expected = torch.tensor([[(0.4 / 3) ** 2 + 0.08**2, (0.4 / 3) ** 2 + 0.8**2]]) / 2
    torch.testing.assert_close(head.loss(predictions, actions), expected)
    # a tenth of the ranges: 0.3 and 0.025
    assert head.correct(predictions, actions).tolist() == [[True, False]]


def test_continuous_actions_cannot_be_sampled() -> None:
    head = make_head(BOUNDED, 8)
    with pytest.raises(ConfigError, match=r"decoding\.method"):
        head.decode(torch.zeros(1, 2), Decoding("sample"))


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (Discrete(3, start=-1), [[-1], [0], [1]]),
        (MultiDiscrete([3, 2], start=[5, -9]), None),
        (MultiDiscrete([[3, 2], [2, 4]]), None),
        (MultiBinary(3), None),
        (MultiBinary([2, 2]), None),
        (Box(-2, 3, (2,), np.int64), None),
        (Box(np.array([[0, 5]], np.uint8), np.array([[1, 9]], np.uint8), dtype=np.uint8), None),
        (Box(4, 6, (), np.int32), [[4], [5], [6]]),
    ],
    ids=str,
)
def test_whole_numbers_of_any_space(space: gym.Space[Any], values: Any) -> None:
    """The loss is the sum of the components' cross-entropies, counted from their lowest values."""
    choices = choices_of(space)
    assert choices is not None
    head = make_head(space, 8)
    predictions = head(torch.randn(2, 5, 8))
    space.seed(0)
    drawn = np.stack([space.sample() for _ in range(10)]).reshape(2, 5, *choices.shape)
    actions = torch.as_tensor(drawn)
    flat = actions.reshape(2, 5, -1).long() - torch.tensor(choices.starts)
    expected = sum(
        F.cross_entropy(logits.flatten(0, 1), flat[..., i].flatten(), reduction="none")
        for i, logits in enumerate(predictions.split(choices.sizes, -1))
    )
    torch.testing.assert_close(head.loss(predictions, actions), expected.view(2, 5))
    decoded = head.decode(predictions, GREEDY)
    assert decoded.shape == (2, 5, *choices.shape)
    assert head.correct(predictions, decoded).all()
    assert head.loss(predictions, decoded).sum() <= head.loss(predictions, actions).sum()
    sampled = [head.decode(predictions, Decoding("sample", temperature=9)) for _ in range(40)]
    for action in torch.stack([decoded, *sampled]).reshape(-1, *choices.shape).numpy():
        assert space.contains(action.astype(space.dtype)), action
    for action in torch.as_tensor(np.array(values or [])).long():
        assert (torch.stack(sampled) == action).any()
    assert torch.isfinite(head.loss(predictions, torch.zeros_like(actions))).all()  # padding


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 2)], ids=str)
def test_continuous_actions_of_any_shape(shape: tuple[int, ...]) -> None:
    """They are those of the flat space, in another shape."""
    low = np.full(shape, -2, np.float32)
    high = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    space, hidden = Box(low, high), torch.randn(3, 4, 8)
    head, flat = make_head(space, 8), make_head(Box(low.ravel(), high.ravel()), 8)
    flat.load_state_dict(head.state_dict())
    predictions = head(hidden)
    assert torch.equal(predictions, flat(hidden))
    actions = torch.as_tensor(np.stack([space.sample() for _ in range(12)])).view(3, 4, *shape)
    row = actions.reshape(3, 4, -1)
    assert torch.equal(head.loss(predictions, actions), flat.loss(predictions, row))
    decoded = head.decode(predictions, GREEDY)
    assert decoded.shape == (3, 4, *shape)
    assert torch.equal(decoded.reshape(3, 4, -1), flat.decode(predictions, GREEDY))
    assert head.correct(predictions, decoded).all()
    assert torch.equal(head.correct(predictions, actions), flat.correct(predictions, row))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gym.spaces.Text(3), "no action head for the space"),
        (gym.spaces.Dict(a=Discrete(2)), "no action head for the space"),
        (Box(0, 2**40, (2,), np.int64), "1,099,511,627,777 whole numbers"),
        (Box(-(2**63), 2**63 - 1, (2,), np.int64), "Give the actions as floats"),
        (Discrete(5000), "at most 4,096"),
        (Box(-1, 1, (0,)), "is empty"),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused(space: gym.Space[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_head(space, 8)
