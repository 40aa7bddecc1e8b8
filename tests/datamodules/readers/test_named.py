from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.named import open_episodes, open_flat
from datamodules.source import ValidEpisodes
from tests.datamodules.samples import LENGTHS, columns

ROWS, ENDS = sum(LENGTHS), np.cumsum(LENGTHS)
PATH = Path("somewhere")


def flat(**changes):
    """Returns three episodes of 4, 6 and 3 steps; changes that are None remove a column."""
    made = [columns(length, number) for number, length in enumerate(LENGTHS)]
    arrays = {key: np.concatenate([one[key] for one in made]) for key in made[0]}
    del arrays["terminals"], arrays["next_observations"]
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def at(rows, dtype=bool):
    flags = np.zeros(ROWS, dtype)
    flags[rows] = 1
    return flags


def read(source):
    return list(ValidEpisodes(source))


LAST, FIRST = ENDS - 1, np.array([0, *ENDS[:-1]])
BOUNDARIES = {
    "terminals and timeouts": {"terminals": at([3, 12]), "timeouts": at(9)},
    "terminated and truncated": {"terminated": at([3, 12], int), "truncated": at(9, "f4")},
    "dones": {"dones": at(LAST), "truncations": at(9)},
    "d3rlpy 1": {"terminals": at([3, 12], "f4"), "episode_terminals": at(LAST, "f4")},
    "stable-baselines": {"episode_starts": at(FIRST), "terminals": at([3, 12])[:, None]},
    "dreamer": {"is_first": at(FIRST), "is_last": at(LAST), "is_terminal": at([3, 12])},
    "ids": {"traj_id": np.repeat([7, 3, 9], LENGTHS), "terminals": at([3, 12])},
    "starts": {"index": FIRST, "terminal": np.array([True, False, True])},
    "splits": {"indices": ENDS[:-1], "terminal": np.array([1, 0, 1])},
    "ends": {"episode_ends": ENDS, "terminal": at([3, 12])},
    "lengths": {"lengths": np.array(LENGTHS), "terminal": at([3, 12])},
    "discounts": {"is_last": at(LAST), "discount": 1 - at([3, 12], "f4")[:, None]},
}


@pytest.mark.parametrize("name", BOUNDARIES)
def test_episodes_end_where_any_column_marks_it(name):
    source = open_flat("x", PATH, (), flat(**BOUNDARIES[name]))
    assert (source.num_episodes, source.num_steps) == (3, ROWS)
    for number, episode in enumerate(read(source)):
        wanted = columns(LENGTHS[number], number)
        for key in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, key), wanted[key])
        assert (episode.terminated, episode.truncated) == (number != 1, number == 1)
    assert [len(episode) for episode in source.read(1, pytest.fail)] == list(LENGTHS[1:])


NAMES = {
    "observations": ("observation", "obs", "states", "STATE"),
    "actions": ("action", "act", "acts"),
    "rewards": ("reward", "rew", "r"),
    "terminals": ("terminal", "terminated", "terminations", "dones", "done", "is_terminal"),
}


@pytest.mark.parametrize(("ours", "theirs"), [(o, t) for o, names in NAMES.items() for t in names])
@pytest.mark.parametrize("map_it", [False, True])
def test_columns_by_any_name(ours, theirs, map_it):
    name = "something" if map_it else theirs
    role = "terminated" if theirs in ("terminated", "terminations", "is_terminal") else ours

    def episodes(start):
        for number, length in list(enumerate(LENGTHS))[start:]:
            made = columns(length, number)
            made[name] = made.pop(ours)
            yield made

    options = Options(columns=((name, role),) if map_it else ())
    for number, episode in enumerate(read(open_episodes("x", PATH, (), episodes, options))):
        wanted = columns(LENGTHS[number], number)
        for key in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, key), wanted[key])
        assert episode.terminated == (number != 1)
        np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])


def test_missing_information_is_asked_for():
    with pytest.raises(DatasetError, match=r"no column tells where episodes end.*--time-limit"):
        open_flat("x", PATH, (), flat())
    with pytest.raises(DatasetError, match=r"'terminals' alone.*--map terminals=done"):
        open_flat("x", PATH, (), flat(terminals=at([3, 12])))
    with pytest.raises(DatasetError, match=r"no rewards; it has.*--zero-rewards"):
        open_flat("x", PATH, (), flat(rewards=None, dones=at(LAST)))
    with pytest.raises(DatasetError, match=r"no actions; it has.*torque.*--map THEIRS=actions"):
        open_flat("x", PATH, (), flat(actions=None, torque=np.zeros((ROWS, 3)), dones=at(LAST)))


def test_no_step_is_lost_to_a_time_limit():
    source = open_flat("x", PATH, (), flat(terminals=at(3)), Options(time_limit=1000))
    assert [len(episode) for episode in read(source)] == [4, 9]
    assert "the last 9 steps are no whole episode and are kept" in source.notes[0]
    columns = flat(terminals=at(3), episode_terminals=at(LAST))
    source = open_flat("x", PATH, (), columns, Options(time_limit=1000))
    assert [len(episode) for episode in read(source)] == list(LENGTHS)
    dropped = Options(time_limit=1000, unfinished="drop")
    source = open_flat("x", PATH, (), flat(terminals=at(3)), dropped)
    assert [len(episode) for episode in read(source)] == [4]
    assert "9 steps are no whole episode and are left out" in source.notes[0]


def test_episodes_without_an_end_are_noted():
    def episodes(start):
        for number, length in list(enumerate(LENGTHS))[start:]:
            made = columns(length, number)
            del made["terminals"]
            yield made

    source = open_episodes("x", PATH, (), episodes)
    assert all(episode.truncated for episode in read(source))
    assert source.notes[0].startswith("no column tells which episodes the environment ended")


def test_next_observations_show_ends():
    made = [columns(length, number) for number, length in enumerate(LENGTHS)]
    following = np.concatenate([one["next_observations"] for one in made])
    source = open_flat("x", PATH, (), flat(terminals=at([3, 12]), next_observations=following))
    assert [(len(e), e.terminated) for e in read(source)] == [(4, True), (6, False), (3, True)]
    assert "next observation is not that of the next row" in source.notes[0]


ACTIONS = {
    "indices": (np.arange(ROWS) % 4, spaces.Discrete(4)),
    "a column": ((np.arange(ROWS) % 4)[:, None], spaces.Discrete(4)),
    "whole floats": ((np.arange(ROWS) % 4).astype("f4"), spaces.Discrete(4)),
    "one-hot": (np.eye(6, dtype="f4")[np.arange(ROWS) % 4], spaces.Discrete(6)),
    "wide": (np.linspace(-2, 2, ROWS)[:, None], spaces.Box(-2, 2, (1,))),
    "a number": (np.linspace(-0.5, 0.5, ROWS), spaces.Box(-1, 1, (1,))),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_of_any_form(name):
    actions, space = ACTIONS[name]
    source = open_flat("x", PATH, (), flat(actions=actions, dones=at(LAST)))
    assert source.spec.action_space == space
    found = np.concatenate([episode.actions for episode in read(source)])
    discrete = isinstance(space, spaces.Discrete)
    wanted = np.arange(ROWS) % 4 if discrete else actions.reshape(ROWS, 1)
    np.testing.assert_array_equal(found, wanted)


def test_the_action_range_is_an_option():
    options = Options(action_range=(-3, 3))
    source = open_flat("x", PATH, (), flat(actions=np.arange(ROWS) % 4, dones=at(LAST)), options)
    assert source.spec.action_space == spaces.Box(-3, 3, (1,))
