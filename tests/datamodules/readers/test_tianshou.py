from __future__ import annotations

import h5py
import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.formats import open_source
from datamodules.source import ValidEpisodes
from tests.datamodules.samples import LENGTHS, columns

STEPS = sum(LENGTHS)


def steps():
    made = [columns(length, number) for number, length in enumerate(LENGTHS)]
    return {key: np.concatenate([one[key] for one in made]) for key in made[0]}


def write(path, rings, room, newest):
    """Writes a buffer as tianshou saves it: `rings[i]` are steps in the rows of environment i."""
    names = {"observations": "obs", "actions": "act", "rewards": "rew", "terminals": "terminated"}
    data, count = steps() | {"truncated": np.arange(STEPS) == 9}, len(rings)
    names |= {"next_observations": "obs_next", "truncated": "truncated"}
    with h5py.File(path, "w") as file:
        for key, name in names.items():
            array = np.full((room * count, *data[key].shape[1:]), 7).astype(data[key].dtype)
            for number, ring in enumerate(rings):
                array[number * room : number * room + len(ring)] = data[key][ring]
            file[f"_meta/{name}"] = array
        file["_meta/done"] = file["_meta/terminated"][()] | file["_meta/truncated"][()]
        file.create_group("_meta/info")
        file.attrs["maxsize"], file.attrs["_size"] = room * count, sum(map(len, rings))
        file["last_index"] = np.array(newest)
        if count > 1:
            file["_offset"] = np.arange(count) * room
            file["_lengths"] = np.array([len(ring) for ring in rings])
    return path


def test_a_buffer_with_free_rows(tmp_path):
    source = open_source(write(tmp_path / "x.hdf5", [np.arange(STEPS)], 20, [STEPS - 1]))
    assert (source.format, source.num_steps, source.notes) == ("tianshou", STEPS, ())
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)
        for key in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, key), wanted[key])
        np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])
        assert (episode.terminated, episode.truncated) == (number != 1, number == 1)


def test_a_full_buffer_begins_after_its_newest_step(tmp_path):
    ring = np.roll(np.arange(2, STEPS), 4)  # the two oldest steps were overwritten
    source = open_source(write(tmp_path / "x.hdf5", [ring], STEPS - 2, [3]))
    episodes = list(ValidEpisodes(source))
    assert [len(episode) for episode in episodes] == [2, 6, 3]
    assert [episode.observations[0, 1] for episode in episodes] == [2, 0, 0]
    assert "have lost their beginning" in source.notes[0]


def test_environments_side_by_side(tmp_path):
    rings = [np.arange(4), np.arange(4, 8), np.arange(10, STEPS)]
    source = open_source(write(tmp_path / "x.hdf5", rings, 5, [3, 8, 12]))
    found = [(len(e), e.terminated, e.truncated) for e in ValidEpisodes(source)]
    assert found == [(4, True, False), (4, False, True), (3, True, False)]


def test_an_empty_buffer(tmp_path):
    path = write(tmp_path / "x.hdf5", [np.arange(0)], 5, [0])
    with pytest.raises(DatasetError, match=r"x\.hdf5: the buffer is empty"):
        open_source(path)
