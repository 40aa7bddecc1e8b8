from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import rate.envs
from rate.envs.tmaze import DOWN, LEFT, RIGHT, UP, TMaze, TMazeOracle, TMazeVector, tmaze_spec


def play_oracle(env, seeds):
    oracle = TMazeOracle()
    oracle.reset(env.num_envs)
    observations, _ = env.reset(seed=seeds)
    total, steps = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=int)
    finished = np.zeros(env.num_envs, dtype=bool)
    while not finished.all():
        steps += ~finished
        actions = oracle.step(observations)
        observations, rewards, terminated, truncated, info = env.step(actions)
        total += rewards
        finished = terminated | truncated
    return total, steps, info


@pytest.mark.filterwarnings("ignore:.*render modes.*")
@pytest.mark.parametrize("length", [3, 9, (3, 12)])
def test_gymnasium_accepts_it(length):
    check_env(TMaze(length))


def test_gymnasium_makes_it_by_id():
    env = gymnasium.make("RATE/TMaze-v0", length=5)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    vector = gymnasium.make_vec(
        "RATE/TMaze-v0", num_envs=3, vectorization_mode="vector_entry_point", length=5
    )
    assert vector.reset(seed=0)[0].shape == (3, 4)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED


@pytest.mark.parametrize("length", [3, 4, 9, 90])
def test_an_episode_has_length_observations_and_one_fewer_actions(length):
    env = TMaze(length)
    observation, _ = env.reset(seed=4)
    clue = observation[1]
    assert clue in (-1, 1)
    seen = [observation]
    done, reward = False, 0.0
    while not done:
        action = (UP if clue > 0 else DOWN) if observation[2] else RIGHT
        observation, reward, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        seen.append(observation)
    assert len(seen) == length
    assert reward == 1
    assert terminated
    assert not truncated
    assert info["success"]
    seen = np.array(seen)
    assert (seen[1:, 1] == 0).all()
    assert seen[:, 2].tolist() == [0] * (length - 2) + [1, 0]
    assert seen[:, 0].tolist() == [0] * (length - 1) + [clue]


def test_the_wrong_turn_ends_without_reward():
    env = TMaze(3)
    observation, _ = env.reset(seed=1)
    env.step(RIGHT)
    wrong = DOWN if observation[1] > 0 else UP
    observation, reward, terminated, truncated, info = env.step(wrong)
    assert (reward, terminated, truncated, info["success"]) == (0, True, False, False)


@pytest.mark.parametrize("wasted", [UP, DOWN, LEFT])
def test_a_wasted_move_fails(wasted):
    env = TMaze(4)
    env.reset(seed=1)
    env.step(wasted)
    env.step(RIGHT)
    observation, reward, terminated, truncated, info = env.step(RIGHT)
    assert observation[2] == 1  # the junction is reached only now
    assert (reward, terminated, truncated, info["success"]) == (0, False, True, False)


def test_a_finished_episode_stays_finished():
    env = TMaze(3)
    observation, _ = env.reset(seed=1)
    env.step(RIGHT)
    first = env.step(UP if observation[1] > 0 else DOWN)
    second = env.step(RIGHT)
    assert first[1] == 1
    assert second[1] == 0
    np.testing.assert_array_equal(first[0], second[0])
    assert second[2:] == first[2:]


@pytest.mark.parametrize("length", [3, 7, (3, 10)])
def test_single_and_vector_agree_bit_for_bit(length):
    count = 40
    seeds = [0, 1, 2**62, 2**63 - 1, *range(100, 100 + count - 4)]
    vector = TMazeVector(count, length)
    singles = [TMaze(length) for _ in range(count)]
    batch, info = vector.reset(seed=seeds)
    rows = [env.reset(seed=seed) for env, seed in zip(singles, seeds, strict=True)]
    np.testing.assert_array_equal(batch, np.stack([row[0] for row in rows]))
    rng = np.random.default_rng(0)
    for _ in range(14):  # beyond the end of every episode
        actions = rng.choice(4, size=count, p=[0.7, 0.1, 0.1, 0.1])
        batch, rewards, terminated, truncated, info = vector.step(actions)
        rows = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        for column, values in enumerate((batch, rewards, terminated, truncated)):
            np.testing.assert_array_equal(values, np.stack([row[column] for row in rows]))
        np.testing.assert_array_equal(info["success"], [row[4]["success"] for row in rows])
    assert (terminated | truncated).all()


@pytest.mark.parametrize("length", [3, 9, 1000, (3, 40)])
def test_the_oracle_always_succeeds(length):
    total, steps, info = play_oracle(TMazeVector(64, length), seeds=7)
    assert (total == 1).all()
    assert info["success"].all()
    low, high = (length, length) if isinstance(length, int) else length
    assert steps.min() >= low - 1
    assert steps.max() <= high - 1


def test_seeds_are_reproducible_and_goals_and_noise_are_balanced():
    env = TMazeVector(10_000, (3, 12))
    first, _ = env.reset(seed=0)
    lengths = env._junction + 2
    again, _ = env.reset(seed=list(range(10_000)))
    np.testing.assert_array_equal(first, again)
    assert abs(first[:, 1].mean()) < 0.05
    for value in (-1, 0, 1):
        assert abs((first[:, 3] == value).mean() - 1 / 3) < 0.03
    assert abs(np.corrcoef(first[:, 1], first[:, 3])[0, 1]) < 0.05
    assert np.bincount(lengths, minlength=13)[3:].min() > 800
    # The noise must not identify steps of an episode or neighbouring seeds.
    steps = np.stack([env.step(np.full(10_000, LEFT))[0][:, 3] for _ in range(2)])
    assert abs(np.corrcoef(steps)[0, 1]) < 0.05
    assert abs(np.corrcoef(first[:-1, 3], first[1:, 3])[0, 1]) < 0.05


def test_without_a_seed_episodes_differ_and_follow_the_generator():
    env = TMaze((3, 100))
    env.reset(seed=5)
    drawn = [(env.reset()[0].tolist(), env._length) for _ in range(20)]
    assert len({str(item) for item in drawn}) > 15
    env.reset(seed=5)
    assert drawn == [(env.reset()[0].tolist(), env._length) for _ in range(20)]
    vector = TMazeVector(4, (3, 100))
    vector.reset(seed=5)
    first = vector.reset()[0]
    vector.reset(seed=5)
    np.testing.assert_array_equal(first, vector.reset()[0])


def test_reset_mask_resets_some_rows():
    env = TMazeVector(4, 5)
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.zeros(4, dtype=int))
    mask = np.array([True, False, False, True])
    observations, _ = env.reset(seed=[9, 9, 9, 9], options={"reset_mask": mask})
    assert (observations[mask, 1] != 0).all()
    assert (observations[~mask, 1] == 0).all()
    *_, truncated, _ = env.step(np.zeros(4, dtype=int))
    np.testing.assert_array_equal(truncated, ~mask)


def test_returned_arrays_are_not_reused():
    env = TMazeVector(2, 5)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    second = env.step(np.zeros(2, dtype=int))
    flags = [array.copy() for array in second[:4]]
    for _ in range(5):
        env.step(np.zeros(2, dtype=int))
    np.testing.assert_array_equal(first, kept)
    for array, copy in zip(second[:4], flags, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("length", [2, 0, (2, 5), (6, 5)])
def test_invalid_lengths_are_refused(length):
    with pytest.raises(ValueError, match="T-Maze length"):
        TMaze(length)
    with pytest.raises(ValueError, match="T-Maze length"):
        TMazeVector(2, length)


@pytest.mark.parametrize("actions", [[0, 4], [-1, 0], [0], [0, 0, 0]])
def test_invalid_actions_are_refused(actions):
    env = TMazeVector(2, 5)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="T-Maze actions"):
        env.step(np.array(actions))
    single = TMaze(5)
    single.reset(seed=0)
    with pytest.raises(ValueError, match="T-Maze action 7"):
        single.step(7)


def test_invalid_seeds_and_masks_are_refused():
    env = TMazeVector(2, 5)
    with pytest.raises(ValueError, match="3 seeds for 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(seed=1, options={"reset_mask": np.ones(3, dtype=bool)})
    with pytest.raises(ValueError, match="num_envs"):
        TMazeVector(0)


def test_spec():
    spec = tmaze_spec()
    assert spec == rate.envs.TMAZE_SPEC
    assert spec.target_return == 1
    assert spec.observation_space == TMaze().observation_space
    assert spec.action_space == TMaze().action_space
