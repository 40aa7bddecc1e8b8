from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.readers.trajectories import open_trajectories
from datamodules.source import Checked, refuse
from tests.datamodules.samples import LENGTHS, columns, write_trajectories


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_episodes(tmp_path, protocol):
    source = open_trajectories(write_trajectories(tmp_path / "x.pkl", protocol=protocol))
    for number, episode in enumerate(Checked(source)):
        wanted = columns(LENGTHS[number], number)
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, name), wanted[name])
        assert (episode.terminated, episode.truncated) == (number % 2 == 0, number % 2 == 1)
        np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])
    assert (source.num_episodes, source.num_steps) == (3, sum(LENGTHS))
    assert [len(episode) for episode in source.read(1, pytest.fail)] == list(LENGTHS[1:])


def test_discrete_actions_and_no_next_observations(tmp_path):
    def change(episodes):
        for number, episode in enumerate(episodes):
            del episode["next_observations"]
            episode["actions"] = np.full(len(episode["actions"]), number)

    source = open_trajectories(write_trajectories(tmp_path / "x.pkl", change=change))
    assert source.spec.action_space.n == 3
    assert next(source.read(0, pytest.fail)).last_observation is None


def test_the_name_of_a_task_gives_its_bounds(tmp_path):
    def change(episodes):
        episodes[1]["actions"][2, 1] = -1.5

    named = open_trajectories(write_trajectories(tmp_path / "hopper-medium-v2.pkl", change=change))
    assert named.spec.name == "mujoco-hopper"
    episodes = Checked(named)
    assert [episode.actions.min() >= -1 for episode in episodes] == [True, True, True]
    assert (episodes.clipped.steps, episodes.clipped.furthest) == (1, -1.5)
    unknown = open_trajectories(write_trajectories(tmp_path / "x.pkl", change=change))
    assert unknown.spec.action_space.low.tolist() == [-1, -1.5, -1]


def put(number, key, value):
    def change(episodes):
        if value is None:
            del episodes[number][key]
        else:
            episodes[number][key] = value

    return change


LATE = np.array([0, 0, 1, 0, 0, 0], bool)
BAD = {
    "missing": (put(1, "rewards", None), "episode 1: there are no rewards; .*--zero-rewards"),
    "short": (put(1, "rewards", np.zeros(5)), "episode 1: rewards has 5 steps, but actions has 6"),
    "next": (put(1, "next_observations", np.zeros((7, 11))), "next_observations has 7 steps"),
    "late": (
        put(1, "terminals", LATE),
        "episode 1: terminals: step 2 is an end.*to step 5",
    ),
    "flag": (put(1, "terminals", np.full(6, 2)), "episode 1: terminals is 2 at row 0"),
    "list": (put(1, "rewards", ["a"] * 6), "episode 1: rewards is a list of str, not of numbers"),
    "columns": (put(1, "terminals", np.zeros((6, 2))), r"terminals have shape \(6, 2\)"),
    "scalar": (put(1, "rewards", np.array(1.0)), "rewards has 0 steps"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_or_skipped(tmp_path, name):
    change, message = BAD[name]
    path = write_trajectories(tmp_path / "x.pkl", change=change)
    with pytest.raises(DatasetError, match=message):
        list(open_trajectories(path).read(0, refuse))
    bad = []
    source = open_trajectories(path)
    assert [len(episode) for episode in source.read(0, bad.append)] == [4, 3]
    assert len(bad) == 1
    assert source.num_episodes == 3


@pytest.mark.parametrize(
    ("key", "message"),
    [("rewards", "rewards: the value at step 1"), ("observations", "observations: the value at")],
)
def test_what_is_not_finite_is_found_with_its_step(tmp_path, key, message):
    def change(episodes):
        episodes[2][key][1] = np.nan

    source = open_trajectories(write_trajectories(tmp_path / "x.pkl", change=change))
    with pytest.raises(DatasetError, match=rf"x\.pkl, episode 2: {message}"):
        list(Checked(source))


def test_an_empty_list_or_other_contents(tmp_path):
    path = tmp_path / "x.pkl"
    for contents, message in (([], "no episodes"), ([1, 2], "episode 0: not a dictionary")):
        path.write_bytes(pickle.dumps(contents))
        with pytest.raises(DatasetError, match=message):
            open_trajectories(path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_trajectories(tmp_path / "x.pkl", change=put(2, "rewards", Evil()))
    with pytest.raises(DatasetError, match=r"asks for 'posix\.system'"):
        open_trajectories(path)
    assert not (tmp_path / "pwned").exists()
