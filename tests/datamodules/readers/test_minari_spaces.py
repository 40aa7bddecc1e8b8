from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from datamodules.convert import convert, convert_to_minari
from datamodules.episodes import DatasetError
from datamodules.formats import Options, open_source
from datamodules.minari_writer import keeps_pixels
from datamodules.readers.minari import open_minari, read_minari
from datamodules.readers.minari_source import open_minari_source
from datamodules.readers.spaces import plain_actions, plain_observations
from datamodules.source import ValidEpisodes
from datamodules.store import Store
from rate.envs.mujoco import MujocoOptions, mujoco_spec
from rate.envs.recorded import own_recorded
from tests.datamodules.samples import LENGTHS, nested, write_minari

needs_arrow = pytest.mark.skipif(
    find_spec("pyarrow") is None, reason="Minari needs pyarrow: make install EXTRAS=minari"
)
FORMS = ["hdf5", pytest.param("arrow", marks=needs_arrow)]


@pytest.mark.parametrize("form", FORMS)
def test_nested_observations_of_every_kind(tmp_path, form):
    source = open_minari_source(write_minari(tmp_path, form=form))
    episodes = list(ValidEpisodes(source))
    assert [len(episode) for episode in episodes] == list(LENGTHS)
    for number, episode in enumerate(episodes):
        wanted = nested(LENGTHS[number], number)
        flat = {
            "image": wanted["image"],
            "goal.position": wanted["goal"]["position"],
            "choices.0": wanted["choices"][0],
            "choices.1": wanted["choices"][1],
        }
        assert episode.observations.keys() == flat.keys()
        for key, array in flat.items():
            if key != "image" or keeps_pixels():
                np.testing.assert_array_equal(episode.observations[key], array[:-1])
                np.testing.assert_array_equal(episode.last_observation[key], array[-1])
        assert episode.seed == number
        assert episode.terminated == (number % 2 == 0)
    assert source.notes[0] == "the observations' mission is no array of numbers and is left out"
    assert (source.num_episodes, source.num_steps) == (3, sum(LENGTHS))
    assert [len(episode) for episode in source.read(1, pytest.fail)] == list(LENGTHS[1:])


@pytest.mark.parametrize("form", FORMS)
def test_the_spaces_of_mujoco(tmp_path, form):
    space = spaces.Box(-np.inf, np.inf, (11,), np.float64)
    path = write_minari(
        tmp_path,
        "mujoco/hopper/medium-v0",
        form,
        space,
        spaces.Box(-1, 1, (3,), np.float32),
        lambda length, number: np.random.default_rng(number).standard_normal((length + 1, 11)),
    )
    source = open_minari_source(path)
    assert source.spec.name == "mujoco-hopper"
    assert source.spec.options == {"task": "hopper", "version": "v5"}
    assert open_source(path).notes == (
        "the data do not say which environment they were recorded in; by their name Hopper-v5 is "
        "assumed",
    )
    assert source.spec.observation_space.dtype == np.float32
    assert sum(len(episode) for episode in ValidEpisodes(source)) == sum(LENGTHS)


def say(path, **entries):
    """Changes the metadata of a data set."""
    metadata = path / "data" / "metadata.json"
    known = json.loads(metadata.read_text()) | entries
    metadata.write_text(json.dumps({k: v for k, v in known.items() if v is not None}))
    return path


def hopper(tmp_path, size=11, **entries):
    space, actions = spaces.Box(-9, 9, (size,), np.float64), spaces.Box(-1, 1, (3,), np.float32)
    path = write_minari(
        tmp_path,
        "mine/data-v0",
        space=space,
        actions=actions,
        make=lambda length, number: np.zeros((length + 1, size)),
    )
    return say(path, **entries)


def recorded(id="Hopper-v4", **values):
    return json.dumps({"id": id, "kwargs": {}, "additional_wrappers": [], **values})


def test_the_recorded_environment_survives_conversion(tmp_path):
    env_spec = recorded(kwargs={"healthy_z_range": [0.5, float("inf")]}, max_episode_steps=90)
    settings = {
        "task": "hopper",
        "version": "v4",
        "arguments": {"healthy_z_range": [0.5, "inf"]},
        "max_episode_steps": 90,
    }
    store = convert(open_source(hopper(tmp_path, env_spec=env_spec)), tmp_path / "store")
    assert Store.open(store).spec.options == settings
    assert Store.open(store).spec.recorded == env_spec
    notes = Store.open(store).manifest["provenance"]["notes"]
    assert any("recorded in Hopper-v4 with healthy_z_range=[0.5" in note for note in notes)
    back = convert_to_minari(open_source(store), tmp_path / "back-v0")
    again = open_source(back)
    assert (again.spec.options, again.spec.recorded) == (settings, env_spec)
    assert open_minari(back).env_spec.kwargs == {"healthy_z_range": [0.5, float("inf")]}


def test_options_override_the_recorded_environment(tmp_path):
    path = hopper(tmp_path, env_spec=recorded())
    options = MujocoOptions("hopper", "v5")
    spec = replace(mujoco_spec(options), options=asdict(options))
    source = open_source(path, Options(spec=spec))
    assert source.spec == replace(spec, recorded=recorded())
    assert "recorded in Hopper-v4, but rollouts are made in Hopper-v5" in source.notes[-1]


def test_an_environment_that_does_not_fit_or_is_not_known(tmp_path):
    path = hopper(tmp_path, size=5, env_spec=recorded())
    assert open_source(path).spec.options == {}
    assert "their spaces are not its" in open_source(path).notes[-1]
    say(path, env_spec=recorded("Ant-v5"))
    source = open_source(path)
    assert (source.spec.options, source.notes) == ({}, ())
    assert source.spec.recorded == recorded("Ant-v5")
    say(path, env_spec=recorded(), eval_env_spec=recorded("Hopper-v5", kwargs={"a": 1}))
    assert any(
        "asks for rollouts in Hopper-v5 with a=1" in note for note in open_source(path).notes
    )


def test_an_environment_of_our_own_gives_its_settings(tmp_path):
    path = hopper(tmp_path, env_spec=own_recorded("RATE/MemoryMaze-v0", {"size": 11}))
    assert open_source(path).spec.options == {"size": 11}


@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_no_environment_is_made_to_infer_spaces(tmp_path, name):
    """Minari would make it, and a file can name any function of any module with its arguments."""
    made = tmp_path / "made"
    env_spec = recorded(entry_point="os:mkdir", kwargs={"path": str(made)})
    path = hopper(tmp_path, env_spec=env_spec, **{name: None})
    with pytest.raises(DatasetError, match=f"{name}"):
        open_source(path)
    assert not made.exists()


@pytest.mark.parametrize("form", FORMS)
def test_tuples_of_discrete_become_multi_discrete(tmp_path, form):
    actions = spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2)))
    assert plain_actions(actions, "x") == spaces.MultiDiscrete([3, 2])
    assert plain_actions(spaces.MultiBinary(2), "x") == spaces.MultiBinary(2)
    path = write_minari(
        tmp_path,
        form=form,
        space=spaces.Discrete(5),
        actions=spaces.MultiDiscrete([3, 2]),
        make=lambda length, number: np.arange(length + 1) % 5,
    )
    (first, *_) = ValidEpisodes(open_minari_source(path))
    assert first.actions.shape == (4, 2)
    assert first.observations.tolist() == [0, 1, 2, 3]


def test_spaces_without_numbers():
    with pytest.raises(DatasetError, match=r"x: the observation space Text.* no numbers"):
        plain_observations(spaces.Text(4), "x")
    with pytest.raises(DatasetError, match=r"x: actions of the space Dict"):
        plain_actions(spaces.Dict(a=spaces.Discrete(2)), "x")


def damage(path, change):
    with h5py.File(path / "data" / "main_data.hdf5", "r+") as file:
        change(file["episode_1"])
    return open_minari(path)


def shorten(key, length):
    def change(group):
        data = group[key][()]
        del group[key]
        group[key] = data[:length]

    return change


def early(group):
    group["terminations"][2] = True


def remove(group):
    del group["actions"]


BAD = {
    "actions": (shorten("actions", 5), "episode 1: actions has 5 steps, but rewards has 6"),
    "frames": (shorten("observations/image", 6), r"\['image'\] has 6 rows, but 6 rewards need 7"),
    "flags": (shorten("truncations", 3), "episode 1: truncations has 3 steps"),
    "early": (early, "terminations is true at step 2, but the episode goes on to step 5"),
    "empty": (shorten("rewards", 0), "episode 1: the episode has no steps"),
    "removed": (remove, "episode 1: cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_episodes_are_named_or_skipped(tmp_path, name):
    change, message = BAD[name]
    dataset = damage(write_minari(tmp_path), change)
    with pytest.raises(DatasetError, match=message):
        list(read_minari(dataset))
    bad = []
    assert [len(episode) for episode in read_minari(dataset, on_bad=bad.append)] == [4, 3]
    assert len(bad) == 1


@needs_arrow
def test_a_damaged_arrow_file_loses_its_own_episode_only(tmp_path):
    path = write_minari(tmp_path, form="arrow")
    (file,) = (path / "data" / "1").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    bad = []
    dataset = open_minari(path)
    assert [len(episode) for episode in read_minari(dataset, on_bad=bad.append)] == [4, 3]
    assert "episode 1: cannot be read" in str(bad[0])
