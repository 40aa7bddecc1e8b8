from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError
from datamodules.collector import Collector, expert_seeds
from datamodules.store import Store
from datamodules.tmaze import generate_tmaze
from rate.envs.tmaze import TMaze
from tests.datamodules.walk import SPACE, Walk, make_collector
from trainers.config import EvaluationConfig


class Right:
    def reset(self, env, seed):
        self.env, self.seed = env, seed

    def act(self):
        return 0


def test_a_collected_episode_is_that_of_the_environment_for_the_seed():
    episode = make_collector().collect(12)
    env = Walk()
    observation, _ = env.reset(seed=12)
    for step, action in enumerate(episode.actions):
        for key in SPACE:
            np.testing.assert_array_equal(episode.observations[key][step], observation[key])
        observation, reward, terminated, truncated, info = env.step(action)
        assert reward == episode.rewards[step]  # in float64: 0.1 is not rounded
    for key in SPACE:
        np.testing.assert_array_equal(episode.last_observation[key], observation[key])
        assert episode.observations[key].dtype == SPACE[key].dtype
    assert (terminated, truncated) == (episode.terminated, episode.truncated) == (False, True)
    assert episode.seed == 12
    assert episode.outcome == {"success": float(info["success"]), "items": float(info["items"])}


def test_long_episodes_grow_and_players_have_no_memory():
    collector = Collector(lambda: TMaze(400), Right)
    first = collector.collect(3)
    collector.collect(4)
    again = collector.collect(3)
    assert len(first) == 399
    assert first.observations.shape == (399, 4)
    np.testing.assert_array_equal(first.observations, again.observations)
    assert first.truncated
    assert first.outcome == {"success": 0.0}
    collector.close()


def test_an_observation_of_another_shape_is_refused():
    class Wrong(gymnasium.Env):
        observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(1)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

    with pytest.raises(DatasetError, match=r"observation of step 0 has shape \(1,\), but its .*3"):
        Collector(Wrong, Right).collect(0)


def test_seeds_of_data_and_rollouts_are_disjoint(tmp_path):
    """Seeds of rollouts have at most 32 bits, and those of data sets are larger."""
    highest = (1 << 32) - 1
    assert EvaluationConfig.test_seed < highest
    for seed in (0, 1, (1 << 20) - 1):  # 0 and 2**20 - 1 are the limits of data.seed
        assert expert_seeds(10, seed)[0] > highest
    store = Store.open(generate_tmaze(tmp_path, 9, num_episodes=6, seed=0))
    assert store.arrays["seeds"].min() > highest


def test_data_sets_of_two_seeds_share_no_episode(tmp_path):
    many = 1 << 31  # episodes: far more than any data set has
    for seed in (0, 1, 7):
        assert expert_seeds(many, seed)[-1] < expert_seeds(many, seed + 1)[0]
    assert expert_seeds(many, (1 << 20) - 1)[-1] < 1 << 63  # seeds of a store are int64
    seeds = [
        set(Store.open(generate_tmaze(tmp_path, 9, 6, seed)).arrays["seeds"].tolist())
        for seed in (0, 1, 2)
    ]
    assert len(set.union(*seeds)) == sum(map(len, seeds)) == 18
