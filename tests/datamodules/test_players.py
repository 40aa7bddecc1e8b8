from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError
from datamodules.players import Player
from rate.envs.tmaze import TMaze
from tests.datamodules.walk import SPACE, Walk, make_player


class Right:
    def reset(self, env, seed):
        self.env, self.seed = env, seed

    def act(self):
        return 0


def test_a_recording_is_what_the_environment_gives_for_the_seed():
    recording = make_player().play(12)
    episode = recording.episode
    env = Walk()
    observation, _ = env.reset(seed=12)
    for step, action in enumerate(episode.actions):
        for key in SPACE:
            np.testing.assert_array_equal(episode.observations[key][step], observation[key])
        observation, reward, terminated, truncated, info = env.step(action)
        assert reward == episode.rewards[step]  # in float64: 0.1 is not rounded
    for key in SPACE:
        np.testing.assert_array_equal(recording.last_observation[key], observation[key])
        assert episode.observations[key].dtype == SPACE[key].dtype
    assert (terminated, truncated) == (episode.terminated, episode.truncated) == (False, True)
    assert episode.seed == 12
    assert recording.outcome == {"success": float(info["success"]), "items": float(info["items"])}


def test_long_episodes_grow_and_players_have_no_memory():
    player = Player(lambda: TMaze(400), Right)
    first = player.play(3)
    player.play(4)
    again = player.play(3)
    assert len(first.episode) == 399
    assert first.episode.observations.shape == (399, 4)
    np.testing.assert_array_equal(first.episode.observations, again.episode.observations)
    assert first.episode.truncated
    assert first.outcome == {"success": 0.0}
    player.close()


def test_an_observation_of_another_shape_is_refused():
    class Wrong(gymnasium.Env):
        observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(1)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

    with pytest.raises(DatasetError, match=r"observation of step 0 has shape \(1,\), but its .*3"):
        Player(Wrong, Right).play(0)
