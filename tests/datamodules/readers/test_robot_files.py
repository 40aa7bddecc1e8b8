"""HDF5 files of d3rlpy 2, of robomimic and of related libraries."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.source import ValidEpisodes
from tests.datamodules import library_samples as library
from tests.datamodules.samples import LENGTHS, columns


def episodes(path, **options):
    return list(ValidEpisodes(open_source(path, Options(**options))))


def test_d3rlpy_has_the_columns_of_each_episode(tmp_path):
    found = episodes(library.write_d3rlpy(tmp_path / "x.h5"))
    assert [len(episode) for episode in found] == list(LENGTHS)
    for number, episode in enumerate(found):
        wanted = columns(LENGTHS[number], number)
        for ours, theirs in (("observations", "observations"), ("actions", "actions")):
            np.testing.assert_array_equal(getattr(episode, ours), wanted[theirs])
        np.testing.assert_array_equal(episode.rewards, wanted["rewards"])
        assert episode.terminated == (number % 2 == 0) != episode.truncated


def test_d3rlpy_tuples_of_observations_and_indices(tmp_path):
    def change(arrays):
        for number, length in enumerate(LENGTHS):
            seen = arrays.pop(f"observations_{number}")
            arrays[f"observations_{number}_0"] = seen
            arrays[f"observations_{number}_1"] = np.full((length, 2, 4, 4), number, np.uint8)
            arrays[f"actions_{number}"] = np.arange(length)[:, None] % 3

    source = open_source(library.write_d3rlpy(tmp_path / "x.h5", change=change))
    assert source.spec.action_space == spaces.Discrete(3)
    found = list(ValidEpisodes(source))
    assert {key: item.shape for key, item in source.spec.observation_space.items()} == {
        "0": (11,),
        "1": (2, 4, 4),
    }
    assert found[2].observations["1"].max() == 2
    assert found[1].actions.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_missing_d3rlpy_column_loses_its_episode(tmp_path):
    path = library.write_d3rlpy(tmp_path / "x.h5", change=lambda arrays: arrays.pop("actions_1"))
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    assert "episode 1: cannot be read" in str(bad[0])
    assert "there is no actions_1" in str(bad[0])


def test_d3rlpy_cannot_have_more_episodes_than_arrays(tmp_path):
    path = library.write_d3rlpy(tmp_path / "x.h5", change=lambda a: a.update(num_episodes=10**12))
    with pytest.raises(DatasetError, match="cannot be 1000000000000 episodes in 15 arrays"):
        open_source(path)


def test_robomimic_has_a_group_a_demonstration(tmp_path):
    path = library.write_robomimic(tmp_path / "x.hdf5")
    source = open_source(path)
    assert (source.format, source.num_episodes) == ("robomimic", 3)
    assert sorted(source.spec.observation_space.spaces) == ["arm", "object"]
    for number, episode in enumerate(ValidEpisodes(source), start=8):
        wanted = columns(LENGTHS[number - 8], number)
        seen = wanted["observations"]
        np.testing.assert_array_equal(episode.observations["arm"], seen[:, :3])
        np.testing.assert_array_equal(episode.observations["object"], seen[:, 3:])
        last = wanted["next_observations"][-1]
        np.testing.assert_array_equal(episode.last_observation["object"], last[3:])
        np.testing.assert_array_equal(episode.rewards, wanted["rewards"])
        assert episode.terminated == (number % 2 == 0) != episode.truncated
    notes = " ".join(source.notes)
    for word in ("environment is Lift", "simulator's states are left out", "(train)"):
        assert word in notes


def test_success_inside_of_a_demonstration_does_not_end_it(tmp_path):
    def change(file):
        file["data/demo_9/dones"][2:] = 1

    source = open_source(library.write_robomimic(tmp_path / "x.hdf5", change=change))
    assert [len(episode) for episode in ValidEpisodes(source)] == list(LENGTHS)
    assert [episode.terminated for episode in ValidEpisodes(source)] == [True, True, True]


def test_robosuite_has_the_simulators_states_and_no_rewards(tmp_path):
    def change(file):
        for demo in file["data"].values():
            for name in ("obs", "next_obs", "rewards", "dones"):
                del demo[name]
            demo["states"][:, 0] = np.arange(len(demo["states"])) / 20

    path = library.write_robomimic(tmp_path / "x.hdf5", change=change)
    with pytest.raises(DatasetError, match=r"demo_8.*no rewards.*--zero-rewards"):
        open_source(path)
    source = open_source(path, Options(zero_rewards=True))
    assert "simulator's states, whose first number is the time" in " ".join(source.notes)
    assert "taken as truncated" in " ".join(source.notes)
    for episode in ValidEpisodes(source):
        np.testing.assert_allclose(episode.observations[:, 0], np.arange(len(episode)) / 20)
        assert not episode.rewards.any()
        assert (episode.terminated, episode.truncated) == (False, True)


def test_demonstrations_whose_columns_disagree_are_named(tmp_path):
    def change(file):
        del file["data/demo_9/rewards"]
        file["data/demo_9/rewards"] = np.zeros(2)

    path = library.write_robomimic(tmp_path / "x.hdf5", change=change)
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    assert "demo_9" in str(bad[0])
    assert "rewards has 2 steps, but actions has 6" in str(bad[0])


@pytest.mark.parametrize("write", [library.write_d3rlpy, library.write_robomimic])
def test_a_file_that_is_cut_off_is_refused(tmp_path, write):
    path = write(tmp_path / "x.hdf5")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DatasetError, match=r"x\.hdf5"):
        open_source(path)


def test_other_groups_are_not_demonstrations(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["data/demo_of_something"] = np.zeros(3)
    with pytest.raises(DatasetError) as error:
        open_source(tmp_path / "x.hdf5")
    assert "robomimic" not in str(error.value).partition(";")[0]


def test_damage_inside_an_array_loses_its_episode(tmp_path):
    def change(file):
        for name, demo in file["data"].items():
            frames = np.full((len(demo["actions"]), 8, 8, 3), int(name[-1]), np.uint8)
            demo.create_dataset("obs/camera", data=frames, compression="gzip")
            del demo["next_obs"]

    path = library.write_robomimic(tmp_path / "x.hdf5", change=change)
    with h5py.File(path) as file:
        first = file["data/demo_9/obs/camera"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(first.byte_offset)
        raw.write(bytes(first.size))
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    assert "demo_9: cannot be read" in str(bad[0])
