from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from datamodules.two_colors import TwoColorsExpert
from rate.envs.two_colors import TwoColors, TwoColorsOptions

pytest.importorskip("vizdoom")


@pytest.fixture(scope="module")
def room():
    env = TwoColors(length=90)
    yield env
    env.close()


def play(env, expert, seed):
    env.reset(seed=seed)
    expert.reset(env, seed)
    actions, total, finished = [], 0.0, False
    while not finished:
        actions.append(expert.act())
        _, reward, terminated, truncated, info = env.step(actions[-1])
        total += reward
        finished = terminated or truncated
    return actions, total, info


def test_the_expert_takes_right_items_and_few_wrong_ones(room):
    results = [play(room, TwoColorsExpert(), seed) for seed in range(10)]
    right = sum(info["right_items"] for _, _, info in results)
    wrong = sum(info["wrong_items"] for _, _, info in results)
    assert wrong <= 0.03 * (right + wrong)
    assert np.mean([total for _, total, _ in results]) > 4.46  # the published data's mean


def test_the_expert_survives():
    env = TwoColors(length=700)
    _, total, info = play(env, TwoColorsExpert(), seed=1)
    env.close()
    assert info["lifetime"] == 1400
    assert total > 14 + 15


def test_an_episode_is_reproducible(room):
    expert = TwoColorsExpert(noise=0.3)
    first = [play(room, expert, seed) for seed in (1, 2)]
    again = [play(room, TwoColorsExpert(noise=0.3), seed) for seed in (2, 1)]
    assert first == again[::-1]
    assert first[0][0] != play(room, TwoColorsExpert(noise=0.6), 1)[0]


def test_noise_is_the_share_of_random_actions(room):
    expert = TwoColorsExpert(noise=0.25)
    room.reset(seed=0)
    expert.reset(room, 0)
    random = [expert._noise() is not None for _ in range(20_000)]
    assert np.mean(random) == pytest.approx(0.25, abs=0.02)


def test_noise_lowers_returns(room):
    clean, noisy = (
        np.mean([play(room, TwoColorsExpert(noise), seed)[1] for seed in range(8)])
        for noise in (0.0, 0.7)
    )
    assert noisy < clean


def test_the_expert_turns_left_if_no_item_is_visible():
    env = TwoColors(TwoColorsOptions(items=1), length=90)
    actions = [play(env, TwoColorsExpert(), seed)[0][0] for seed in range(12)]
    env.close()
    assert 0 in actions


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="noise is 1"):
        TwoColorsExpert(noise=1)
    with pytest.raises(TypeError, match="the expert plays TwoColors, not"):
        TwoColorsExpert().reset(gymnasium.make("CartPole-v1"), 0)
