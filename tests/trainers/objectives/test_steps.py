"""Masks of decisive steps: final, rewarded and changed actions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rate.batch import Batch
from rate.errors import ConfigError
from tests.factories import make_batch, make_model
from trainers.config_learning import LossConfig
from trainers.objectives.steps import keyframes, last_steps, step_weights


def windows(lengths: list[int], steps: int) -> Batch:
    """Returns rows of episodes of `lengths`; one longer than the window has no end in it."""
    batch = make_batch(make_model("rate"), [min(n, steps) for n in lengths], steps)
    for row, length in enumerate(lengths):
        if length > steps:
            batch.terminated[row] = batch.truncated[row] = False
    return batch


def marked(steps: Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in steps]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (1, [[9], [5], [], [0], []]),
        (3, [[7, 8, 9], [3, 4, 5], [], [0], []]),
        (10, [list(range(10)), list(range(6)), [], [0], []]),
        (99, [list(range(10)), list(range(6)), [], [0], []]),
    ],
)
def test_last_steps_end_with_the_episode(span: int, expected: list[list[int]]) -> None:
    """The episode ends at the window's border, before padding, outside, or after one step."""
    batch = windows([10, 6, 11, 1, 30], steps=10)
    assert marked(last_steps(batch, span)) == expected
    config = LossConfig(weighted_steps="last", last_steps=span, step_weight=7.0)
    weights = step_weights(batch, config)
    assert marked(weights == 7) == expected
    assert torch.equal(weights == 0, ~batch.mask)
    assert weights[batch.mask].ge(1).all()


def test_a_span_of_one_is_the_last_step() -> None:
    batch = windows([10, 6, 11, 3], steps=10)
    assert torch.equal(last_steps(batch, 1), batch.episode_end & batch.mask)


def test_the_span_leaves_other_steps_unchanged() -> None:
    """The span applies to final steps, not to rewarded ones."""
    batch = windows([10, 6], steps=10)
    rewarded = LossConfig(weighted_steps="rewarded", last_steps=5, step_weight=7.0)
    assert torch.equal(step_weights(batch, rewarded) == 7, (batch.rewards != 0) & batch.mask)
    assert torch.equal(step_weights(batch, LossConfig(last_steps=5)), batch.mask.float())


def test_a_span_without_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.last_steps is 0"):
        LossConfig(last_steps=0)


def test_changes_are_steps_whose_action_differs_from_the_one_before() -> None:
    batch = windows([5, 3], steps=5)
    batch.actions[0] = torch.tensor([1, 1, 2, 2, 0])
    batch.actions[1] = torch.tensor([3, 3, 3, 0, 0])  # the last two are padding
    expected = [[0, 2, 4], [0]]
    assert marked(keyframes(batch)) == expected
    weights = step_weights(batch, LossConfig(weighted_steps="keyframes", step_weight=7.0))
    assert marked(weights == 7) == expected
    assert torch.equal(weights == 0, ~batch.mask)


def test_an_action_vector_changes_with_any_component() -> None:
    batch = make_batch(make_model("rate", "matrix_to_bounded"), [4], 4)
    batch.actions[0] = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert marked(keyframes(batch)) == [[0, 2]]
