"""RL Unplugged's DMLab data: every field arrives, symbols as symbols."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError
from datamodules.convert import convert
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.source import ValidEpisodes
from datamodules.store import Store
from tests.datamodules import library_samples as library
from tests.datamodules.library_samples import STEP, image_type, step_type
from tests.datamodules.tfrecords import png

LENGTHS = (4, 3)  # actions; a record has one step more
NAME = {"name": "rlu_dmlab_rooms_select_nonmatching_object"}


def pixels(number, step):
    return np.full((72, 96, 3), 10 * number + step, np.uint8)


def steps_of(length, number):
    """Returns the steps of an episode; what the agent was last given is that of the step before."""
    random = np.random.default_rng(number)
    action = np.append(random.integers(0, 15, length), 0)
    reward = np.append(random.choice([-10.0, 0.0, 1.0, 10.0], length), 0.0)
    return {
        "observation/pixels": [png(pixels(number, step)) for step in range(length + 1)],
        "observation/last_action": np.concatenate([[0], action[:-1]]),
        "observation/last_reward": np.concatenate([[0.0], reward[:-1]]),
        "action": action,
        "reward": reward,
        "discount": np.append(np.ones(length), 0.0),
        "is_first": np.arange(length + 1) == 0,
        "is_last": np.arange(length + 1) == length,
        "is_terminal": np.arange(length + 1) == length,
    }


def write(folder, information=NAME, make=steps_of):
    seen = library.dictionary(
        pixels=image_type((72, 96, 3)),
        last_action=step_type(dtype="int64"),
        last_reward=step_type(),
    )
    step = {**STEP, "action": step_type(dtype="int64"), "observation": seen}
    return library.write_rlds(folder, LENGTHS, step, make, information)


def test_every_field_arrives(tmp_path):
    source = open_source(write(tmp_path / "data"))
    space = source.spec.observation_space
    assert source.spec.action_space == spaces.Discrete(15)
    assert isinstance(space, spaces.Dict)
    assert space["last_action"] == spaces.Discrete(15)
    assert space["pixels"] == spaces.Box(0, 255, (72, 96, 3), np.uint8)
    assert not any("last_action" in note for note in source.notes)  # nothing is converted
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = steps_of(LENGTHS[number], number)
        assert (episode.terminated, episode.truncated) == (True, False)
        np.testing.assert_array_equal(episode.actions, wanted["action"][:-1])
        np.testing.assert_array_equal(episode.rewards, wanted["reward"][:-1])
        seen, last = episode.observations, episode.last_observation
        assert isinstance(seen, dict)
        assert isinstance(last, dict)
        assert seen["last_action"].dtype == np.int64
        for step in range(LENGTHS[number]):
            np.testing.assert_array_equal(seen["pixels"][step], pixels(number, step))
        np.testing.assert_array_equal(last["pixels"], pixels(number, LENGTHS[number]))
        for key in ("last_action", "last_reward"):
            told = np.append(seen[key].ravel(), last[key])
            np.testing.assert_array_equal(told, wanted[f"observation/{key}"])


def test_a_store_keeps_them(tmp_path):
    source = open_source(write(tmp_path / "data"))
    store = Store.open(convert(source, tmp_path / "store"), verify=True)
    assert store.spec.action_space == spaces.Discrete(15)
    assert set(store.observations) == {"last_action", "last_reward", "pixels"}
    assert store.observations["last_action"].dtype == np.int64
    assert "observations/last_action" not in store.normalisation
    assert store.spec.target_return == max(
        steps_of(*pair)["reward"].sum() for pair in ((4, 0), (3, 1))
    )


def test_an_action_that_no_level_has_is_refused(tmp_path):
    def make(length, number):
        steps = steps_of(length, number)
        steps["action"][0] = 15
        return steps

    source = open_source(write(tmp_path / "data", make=make))
    with pytest.raises(DatasetError, match="15"):
        list(ValidEpisodes(source))


def test_other_data_and_other_columns_are_inferred(tmp_path):
    other = open_source(write(tmp_path / "other", {"name": "some_data"}))
    space = other.spec.observation_space
    assert isinstance(space, spaces.Dict)
    assert isinstance(space["last_action"], spaces.Box)
    mapped = Options(columns=(("observation/pixels", "observations"),))
    source = open_source(write(tmp_path / "data"), mapped)
    assert source.spec.observation_space == spaces.Box(0, 255, (72, 96, 3), np.uint8)
    assert len(next(iter(ValidEpisodes(source)))) == LENGTHS[0]
