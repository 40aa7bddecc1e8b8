"""Policies of users collect data sets, in any environment."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest

from datamodules.policy_expert import find_expert, make_policy_collector
from datamodules.store import Store
from rate.errors import ConfigError
from trainers.cli import parse
from trainers.commands import collect

POLICIES = """
import numpy as np

def lean(observation):
    return int(observation[2] > 0)

class Predicts:  # as policies of stable-baselines3 do
    def __init__(self):
        self.starts = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert deterministic
        state = 0 if episode_start[0] else state + 1
        return np.array(state % 2), state

def load():
    return Predicts()

class Looks:  # an expert
    def reset(self, env, seed):
        self.env = env.unwrapped

    def act(self):
        return int(self.env.state[2] > 0)

number = 3
"""


@pytest.fixture
def policies(tmp_path, monkeypatch):
    (tmp_path / "their_policies.py").write_text(POLICIES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield "their_policies"
    sys.modules.pop("their_policies", None)


def make_env():
    return gymnasium.make("CartPole-v1")


@pytest.mark.parametrize("name", ["lean", "Looks"])
def test_a_function_and_an_expert_play(policies, name):
    collector = make_policy_collector(make_env, f"{policies}:{name}")
    episode = collector.collect(3)
    assert episode.actions.tolist() == (episode.observations[:, 2] > 0).astype(int).tolist()
    again = collector.collect(3)
    np.testing.assert_array_equal(again.observations, episode.observations)
    collector.close()


@pytest.mark.parametrize("name", ["Predicts", "load"])
def test_a_policy_that_predicts_keeps_its_state_over_an_episode(policies, name):
    collector = make_policy_collector(make_env, f"{policies}:{name}")
    for seed in (3, 4):
        actions = collector.collect(seed).actions
        assert actions.tolist() == (np.arange(len(actions)) % 2).tolist()
    collector.close()


def test_an_expert_that_takes_noise_has_it():
    explorer = "datamodules.memory_maze_explorer:MemoryMazeExplorer"
    assert vars(find_expert(explorer, 0.3)) == {"_noise": 0.3}


def test_an_object_that_is_no_policy_is_refused(policies):
    with pytest.raises(ConfigError, match=r"their_policies:number is 3; it must be a policy"):
        find_expert(f"{policies}:number")


def test_the_command_collects_with_a_policy_and_any_environment(policies, tmp_path, capsys):
    options = ["--data.max_length=60", "--data.num_episodes=4", "--data.workers=2"]
    root = f"--data.root={tmp_path / 'data'}"
    collect.main(["CartPole-v1", f"--data.expert={policies}:lean", root, *options])
    assert "4 episodes" in capsys.readouterr().out
    (path,) = (tmp_path / "data").glob("CartPole-v1-*/")
    store = Store.open(path, verify=True)
    assert store.manifest["provenance"]["policy"] == "their_policies:lean"
    angles = store.arrays["observations"][:, 2]
    assert store.arrays["actions"].tolist() == (angles > 0).astype(int).tolist()


def test_settings_are_fitted_to_the_data_that_a_policy_plays(policies, tmp_path):
    options = [f"--data.root={tmp_path}", "--data.num_episodes=4", "--logging.progress=false"]
    config = parse("CartPole-v1", [f"--data.expert={policies}:lean", *options, "--model=dt"]).config
    (path,) = tmp_path.glob("CartPole-v1-*/")
    store = Store.open(path)
    assert config.max_length == 500  # CartPole's own limit
    assert config.model.return_scale == store.return_range[1]
    assert config.model.context_length == store.lengths.max() < 60
    shorter = parse(
        "CartPole-v1", [f"--data.expert={policies}:lean", *options, "--data.max_length=9"]
    )
    assert shorter.config.max_length == 9
    assert shorter.config.window == 9
