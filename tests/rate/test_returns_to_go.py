"""The modes of the return-to-go in rollouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rate.policy import Policy
from rate.returns_to_go import ReturnsToGo
from tests.factories import K, make_model
from tests.rate.test_policy import observe

REWARDS = np.array([[1.0, 0.25], [2.0, -3.0], [0.5, 0.0], [-1.0, 0.5], [4.0, 1.0], [0.0, 2.0]])
LOW, HIGH = 0.5, 5.5


def asked(mode: Any, resets: dict[int, list[bool]] | None = None) -> np.ndarray[Any, Any]:
    """The returns-to-go `(steps, B)` of a policy with target 5 over the steps of `REWARDS`."""
    policy = Policy(
        make_model("rate"),
        num_envs=2,
        target_return=5.0,
        return_to_go=mode,
        trained_range=(LOW, HIGH),
    )
    seen = []
    inner = policy.decoder.step

    def watched(inputs: Any) -> Any:
        seen.append(inputs.returns_to_go[:, 0].tolist())
        return inner(inputs)

    policy.decoder.step = watched  # type: ignore[method-assign]
    for step in range(len(REWARDS) + 1):
        if resets and step in resets:
            policy.reset(np.array(resets[step]))
        observations = observe(policy.model, step)[:2]
        policy.act(observations, REWARDS[step - 1] if step else None)
    return np.array(seen)


@pytest.mark.parametrize("row", [0, 1])
def test_each_mode_gives_the_model_its_return_to_go(row: int) -> None:
    earned = np.concatenate([[0], REWARDS[:, row].cumsum()])
    decrease = 5 - earned
    np.testing.assert_allclose(asked("decrease")[:, row], decrease)
    np.testing.assert_allclose(asked("hold")[:, row], 5)
    np.testing.assert_allclose(asked("clamp")[:, row], decrease.clip(LOW, HIGH))
    since = earned - np.where(np.arange(len(earned)) < K, 0, earned[K])
    np.testing.assert_allclose(asked("per_segment")[:, row], 5 - since)


@pytest.mark.parametrize("mode", ["decrease", "hold", "clamp", "per_segment"])
def test_a_reset_row_starts_from_the_target_and_the_other_goes_on(mode: Any) -> None:
    """Segments are counted from the start of each row's own episode."""
    alone = asked(mode)
    both = asked(mode, {3: [True, False]})
    np.testing.assert_array_equal(both[:, 1], alone[:, 1])
    np.testing.assert_array_equal(both[:3, 0], alone[:3, 0])
    earned = np.concatenate([[0], REWARDS[3:, 0].cumsum()])
    expected = 5 - earned
    if mode == "hold":
        expected[:] = 5
    elif mode == "clamp":
        expected = expected.clip(LOW, HIGH)
    assert len(expected) <= K  # no segment border
    np.testing.assert_allclose(both[3:, 0], expected)


def test_the_next_return_to_go_is_what_the_next_step_gives() -> None:
    for mode in ("decrease", "hold", "clamp", "per_segment"):
        model = make_model("rate")
        policy = Policy(
            model, num_envs=2, target_return=5.0, return_to_go=mode, trained_range=(LOW, HIGH)
        )
        policy.act(observe(model, 0)[:2])
        for step, rewards in enumerate(REWARDS, start=1):
            before = policy.returns_to_go.clone()
            following = policy.returns_to_go_after(rewards)
            assert torch.equal(policy.returns_to_go, before)
            policy.act(observe(model, step)[:2], rewards)
            assert torch.equal(policy.returns_to_go, following)


def test_a_held_return_to_go_needs_no_rewards() -> None:
    model = make_model("rate")
    policy = Policy(model, num_envs=2, target_return=5.0, return_to_go="hold")
    for step in range(3):
        policy.act(observe(model, step)[:2])
    policy = Policy(model, num_envs=2, target_return=5.0)
    policy.act(observe(model, 0)[:2])
    with pytest.raises(ValueError, match="rewards are missing"):
        policy.act(observe(model, 1)[:2])


def test_invalid_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of: decrease, hold, clamp, per_segment"):
        ReturnsToGo(1, 5.0, "fall")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clamp needs trained_range"):
        ReturnsToGo(1, 5.0, "clamp")
    with pytest.raises(ValueError, match="must be a finite number"):
        ReturnsToGo(1, float("inf"), "hold")
