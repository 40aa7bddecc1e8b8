"""Atari games: seeds, rows, rewards and ends of episodes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import rate.envs  # noqa: F401 (registers the environments)
from rate.envs.atari import Atari, AtariOptions, AtariVector, atari_spec
from rate.envs.atari_games import NUM_ACTIONS, REFERENCE_SCORES, title
from rate.errors import ConfigError

pytest.importorskip("ale_py", reason="Atari needs ale-py: make install EXTRAS=atari")


def play(env, seeds, steps, actions):
    """Returns frames `(steps + 1, N, 84, 84)` and rewards for the same actions in every row."""
    frames, rewards = [env.reset(seed=seeds)[0]], []
    for action in actions[:steps]:
        seen, reward, *_ = env.step(np.full(env.num_envs, action))
        frames.append(seen)
        rewards.append(reward)
    return np.stack(frames), np.stack(rewards)


@pytest.fixture(scope="module")
def actions():
    return np.random.default_rng(0).integers(0, 6, 200).tolist()


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_an_episode_depends_on_its_seed_alone_in_any_row(sticky, actions):
    options = AtariOptions("Pong", sticky_actions=sticky)
    env = AtariVector(3, options, 500, workers=1)
    first, rewards = play(env, [4, 1 << 40, 4], 150, actions)
    np.testing.assert_array_equal(first[:, 0], first[:, 2])
    assert (first[:, 0] != first[:, 1]).any()
    again, _ = play(env, [9, 4, 1 << 40], 150, actions)
    np.testing.assert_array_equal(again[:, 1], first[:, 0])
    np.testing.assert_array_equal(again[:, 2], first[:, 1])
    single = Atari(options, 500)
    seen, total = [single.reset(seed=4)[0]], []
    for action in actions[:150]:
        frame, reward, *_ = single.step(action)
        seen.append(frame)
        total.append(reward)
    np.testing.assert_array_equal(np.stack(seen), first[:, 0])
    assert total == rewards[:, 0].tolist()


def test_reset_mask_resets_some_rows(actions):
    env, alone = (AtariVector(2, length=500, workers=1) for _ in range(2))
    whole, _ = play(alone, [1, 2], 60, actions)
    play(env, [3, 2], 20, actions)
    seen, info = env.reset(seed=[5, 0], options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(seen[1], whole[20, 1])
    assert info["score"][0] == 0
    for step in range(20, 60):
        seen, *_ = env.step(np.full(2, actions[step]))
        np.testing.assert_array_equal(seen[1], whole[step + 1, 1])


def test_the_first_reset_can_have_a_mask():
    env = AtariVector(2, length=5, workers=1)
    env.reset(seed=[1, 1], options={"reset_mask": np.array([False, True])})
    _, rewards, terminated, truncated, _ = env.step(np.zeros(2, int))
    assert (terminated | truncated).tolist() == [True, False]
    assert rewards[0] == 0


def test_a_finished_row_keeps_its_observation_and_flags(actions):
    env = AtariVector(2, length=10, workers=1)
    env.reset(seed=[1, 2])
    for step in range(10):
        seen, _, terminated, truncated, info = env.step(np.full(2, actions[step]))
        assert truncated.tolist() == [step == 9] * 2
    assert not terminated.any()
    env.reset(seed=[0, 3], options={"reset_mask": np.array([False, True])})
    for _ in range(3):
        after, rewards, _, truncated, later = env.step(np.zeros(2, int))
        np.testing.assert_array_equal(after[0], seen[0])
        assert (rewards[0], truncated.tolist()) == (0, [True, False])
        assert later["score"][0] == info["score"][0]


def test_rewards_are_clipped_but_not_the_score():
    for clip in (True, False):
        env = AtariVector(1, AtariOptions("Qbert", clip_rewards=clip), 400, workers=1)
        env.reset(seed=[1])
        rng, rewards = np.random.default_rng(3), []
        for _ in range(400):
            _, reward, terminated, truncated, info = env.step(rng.integers(0, 6, 1))
            rewards.append(float(reward[0]))
            if terminated[0] or truncated[0]:
                break
        score = float(info["score"][0])
        assert score >= 25
        low, high = REFERENCE_SCORES["qbert"]
        assert info["normalised_score"][0] == pytest.approx(100 * (score - low) / (high - low))
        assert (set(rewards) == {0.0, 1.0}) if clip else (sum(rewards) == score)


def test_a_lost_game_terminates():
    env = Atari(AtariOptions("Breakout", fire_reset=True), 5000)
    env.reset(seed=0)
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(1)
        steps += 1
    assert terminated
    assert not truncated
    assert steps < 4000
    assert set(info) == {"score", "normalised_score"}
    assert env.step(0)[1:4] == (0.0, True, False)


@pytest.mark.parametrize("game", ["Breakout", "qbert", "SEAQUEST", "Pong", "ms-pacman", "MsPacman"])
def test_names_of_games_ignore_case(game):
    options = AtariOptions(game)
    spec = atari_spec(options)
    assert spec.observation_space.shape == (84, 84)
    assert spec.action_space.n == NUM_ACTIONS[options.rom]
    env = AtariVector(1, options, 5, workers=1)
    assert env.observation_space.contains(env.reset(seed=1)[0])
    assert AtariOptions(title(options.rom)).rom == options.rom


def test_target_returns_are_in_units_of_the_rewards():
    assert atari_spec(AtariOptions("Breakout")).target_return == 90
    assert atari_spec(AtariOptions("Qbert", clip_rewards=False)).target_return == 14_000


def test_invalid_arguments_are_refused():
    with pytest.raises(ConfigError, match=r"env\.game is 'Pnog'.*Did you mean Pong\?"):
        atari_spec(AtariOptions("Pnog"))
    with pytest.raises(ConfigError, match=r"env\.sticky_actions is 1\.0"):
        AtariOptions(sticky_actions=1.0)
    with pytest.raises(ConfigError, match=r"env\.noop_max is -1"):
        AtariOptions(noop_max=-1)
    with pytest.raises(ValueError, match="at least 1 step"):
        Atari(length=0)
    with pytest.raises(ValueError, match="num_envs is 0"):
        AtariVector(0)
    env = AtariVector(2, length=5, workers=1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, int))
    env.reset(seed=1)
    for wrong in (np.array([0, 6]), np.zeros(3, int), np.array([-1, 0])):
        with pytest.raises(ValueError, match="Pong actions: expected"):
            env.step(wrong)
    with pytest.raises(ValueError, match="reset_mask has shape"):
        env.reset(options={"reset_mask": np.ones(3, dtype=bool)})


def test_gymnasium_make():
    env = gymnasium.make("RATE/Atari-v0", game="Breakout", length=7)
    assert env.reset(seed=1)[0].shape == (84, 84)
    assert env.unwrapped.max_steps == 7


def test_the_last_action_and_reward_can_be_observed(actions):
    options = AtariOptions("Pong", last_action=True, last_reward=True)
    env, plain = AtariVector(2, options, workers=1), AtariVector(2, workers=1)
    seen, _ = env.reset(seed=[1, 2])
    frames, _ = plain.reset(seed=[1, 2])
    assert not seen["last"].any()
    rewards = []
    for action in actions:
        seen, reward, *_ = env.step(np.array([action, 0]))
        frames, *_ = plain.step(np.array([action, 0]))
        np.testing.assert_array_equal(seen["image"], frames)
        expected = [[reward[0], *np.eye(6)[action]], [reward[1], *np.eye(6)[0]]]
        np.testing.assert_array_equal(seen["last"], expected)
        assert env.observation_space.contains(seen)
        rewards.append(reward)
    assert np.abs(rewards).sum() > 0
    seen, _ = env.reset(seed=[3, 4], options={"reset_mask": np.array([True, False])})
    assert seen["last"].any(axis=1).tolist() == [False, True]


@pytest.mark.parametrize(("setting", "width"), [("last_action", 6), ("last_reward", 1)])
def test_either_can_be_observed_alone(setting, width):
    env = Atari(AtariOptions("Pong", **{setting: True}))
    env.reset(seed=0)
    seen, *_ = env.step(2)
    assert env.observation_space.contains(seen)
    assert seen["last"].tolist() == ([0, 0, 1, 0, 0, 0] if width == 6 else [0])
    assert env.frame.shape == (84, 84)


def test_the_environment_can_stack_frames(actions):
    env, plain = Atari(AtariOptions("Pong", num_frames=4)), Atari(AtariOptions("Pong"))
    env.reset(seed=1)
    frames = [plain.reset(seed=1)[0]]
    for action in actions[:20]:
        seen, *_ = env.step(action)
        frames.append(plain.step(action)[0])
        np.testing.assert_array_equal(env.frame, frames[-1])
    np.testing.assert_array_equal(seen, frames[-4:])
    with pytest.raises(ConfigError, match=r"env\.num_frames is 0; use 1 to 16"):
        AtariOptions("Pong", num_frames=0)
