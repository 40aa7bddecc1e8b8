from __future__ import annotations

import contextlib

import h5py
import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.hdf5 import broken_chains, open_hdf5
from datamodules.source import raise_error
from tests.datamodules.samples import LENGTHS, columns, write_d4rl

STEPS = sum(LENGTHS) + 2


def test_episodes_end_at_terminals_and_timeouts(tmp_path):
    source = open_hdf5(write_d4rl(tmp_path / "hopper_medium-v2.hdf5"))
    episodes = list(source.read(0, pytest.fail))
    assert [len(episode) for episode in episodes] == list(LENGTHS)
    assert [(e.terminated, e.truncated) for e in episodes] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    for number, episode in enumerate(episodes):
        wanted = columns(LENGTHS[number], number)
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, name), wanted[name])
        np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])
    assert (source.num_episodes, source.num_steps) == (3, sum(LENGTHS))
    (note,) = source.notes
    assert note.startswith("the last 2 steps are no whole episode and are left out")
    assert source.spec.name == "mujoco-hopper"
    assert [len(episode) for episode in source.read(2, pytest.fail)] == [LENGTHS[2]]


def test_other_environments_and_files_without_next_observations(tmp_path):
    path = write_d4rl(tmp_path / "pen.hdf5", unfinished=0, next_observations=None)
    source = open_hdf5(path)
    assert source.spec.name == "d4rl"
    assert source.spec.action_space.high.tolist() == [1, 1, 1]
    assert not source.notes
    assert next(source.read(0, pytest.fail)).last_observation is None


def test_files_without_timeouts_need_a_limit(tmp_path):
    path = write_d4rl(tmp_path / "hopper_medium.hdf5", timeouts=None, next_observations=None)
    with pytest.raises(DatasetError, match=r"--time-limit STEPS.*--map terminals=done"):
        open_hdf5(path)
    episodes = list(open_hdf5(path, Options(time_limit=3)).read(0, pytest.fail))
    # 4 steps to the first terminal; then 6 and 3 to the second; then 2 that do not end.
    assert [len(episode) for episode in episodes] == [3, 1, 3, 3, 3, 2]
    assert [e.terminated for e in episodes] == [False, True, False, False, True, False]
    assert [e.truncated for e in episodes] == [True, False, True, True, False, True]


def flags(place, value, kind=np.float32):
    array = np.zeros(STEPS, kind)
    array[3] = 1
    array[place] = value
    return array


BAD = {
    "no actions": (
        {"actions": None},
        "there are no actions; it has next_observations, observations.*--map THEIRS=actions",
    ),
    "no steps": (
        {name: np.zeros((0, 3)) for name in ("observations", "actions", "next_observations")}
        | {name: np.zeros(0) for name in ("rewards", "terminals", "timeouts")},
        "bad.hdf5: there are no steps",
    ),
    "few rewards": (
        {"rewards": np.zeros(STEPS - 1)},
        f"rewards has 14 steps, but actions has {STEPS}",
    ),
    "few timeouts": ({"timeouts": np.zeros(3, bool)}, "timeouts has 3 rows"),
    "flag": ({"terminals": flags(7, 0.5)}, "terminals is 0.5 at row 7"),
    "flag is nan": ({"terminals": flags(7, np.nan)}, "terminals is nan at row 7"),
    "no end": (
        {"terminals": np.zeros(STEPS), "timeouts": np.zeros(STEPS)},
        "no episode ends",
    ),
    "texts": ({"observations": np.array([b"a"] * STEPS)}, "observations holds .S1, not numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_data_are_named(tmp_path, name):
    changes, message = BAD[name]
    path = write_d4rl(tmp_path / "bad.hdf5", **changes)
    with pytest.raises(DatasetError, match=message):
        open_hdf5(path)


def test_a_scalar_is_not_a_column(tmp_path):
    path = write_d4rl(tmp_path / "number.hdf5", rewards=None)
    with h5py.File(path, "r+") as file:
        file["rewards"] = 1.0
    with pytest.raises(DatasetError, match="rewards has 0 steps"):
        open_hdf5(path)


def test_columns_of_flags_and_rewards_become_flat(tmp_path):
    path = tmp_path / "columns.hdf5"
    write_d4rl(path, terminals=flags(3, 1)[:, None], rewards=np.arange(STEPS)[:, None])
    first = next(open_hdf5(path).read(0, pytest.fail))
    assert first.rewards.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kept", [9, 0.3, 0.7, 0.99])
def test_a_truncated_file(tmp_path, kept):
    path = write_d4rl(tmp_path / "cut.hdf5")
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
    with pytest.raises(DatasetError, match=r"cut\.hdf5: a damaged or truncated HDF5 file"):
        open_hdf5(path)


def test_a_damaged_chunk_loses_its_own_episodes_only(tmp_path):
    path = tmp_path / "damaged.hdf5"
    write_d4rl(path)
    with h5py.File(path, "r+") as file:
        rewards = file["rewards"][()]
        del file["rewards"]
        data = file.create_dataset("rewards", data=rewards, chunks=(5,), fletcher32=True)
        place = data.id.get_chunk_info(1).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x55
    path.write_bytes(bytes(raw))
    bad = []
    kept = [int(e.observations[0, 0]) for e in open_hdf5(path).read(0, bad.append)]
    assert kept == [0, 2]
    assert "damaged.hdf5, episode 1: cannot be read" in str(bad[0])
    with pytest.raises(DatasetError, match="episode 1: cannot be read"):
        list(open_hdf5(path).read(0, raise_error))


def test_mutated_files_raise_dataset_errors_only(tmp_path):
    path = write_d4rl(tmp_path / "d.hdf5")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(whole)
        changed[rng.integers(0, len(whole))] = rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(DatasetError):
            list(open_hdf5(path).read(0, lambda error: None))


def test_next_observations_that_break_without_an_end_are_named(tmp_path):
    path = write_d4rl(tmp_path / "whole.hdf5")
    assert not list(broken_chains(path))
    # The time-out of the second episode is not marked: it is joined with the third.
    path = write_d4rl(tmp_path / "joined.hdf5", timeouts=np.zeros(STEPS, bool))
    (found,) = broken_chains(path)
    assert "joined.hdf5, episode 1: the next observation of step 5 is not that of step 6" in found


@pytest.mark.parametrize("kind", ["link", "storage"])
def test_arrays_of_other_files_are_not_read(tmp_path, kind):
    path, other = write_d4rl(tmp_path / "x.hdf5"), write_d4rl(tmp_path / "other.hdf5")
    (tmp_path / "secret").write_bytes(b"x" * 1000)
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        if kind == "link":
            file["rewards"] = h5py.ExternalLink(str(other), "/rewards")
        else:
            place = [(str(tmp_path / "secret"), 0, STEPS * 4)]
            file.create_dataset("rewards", (STEPS,), np.float32, external=place)
    with pytest.raises(DatasetError, match=r"x\.hdf5: rewards stands in another file"):
        open_hdf5(path)


def test_rows_of_resets_are_found_in_hdf5(tmp_path):
    """V-D4RL's files are flat, and the first row of an episode is that of the reset."""
    rows = np.tile(np.arange(5), 2)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["observation"] = np.arange(10.0)[:, None]
        file["action"] = np.where(rows == 0, 0, rows)[:, None] * np.ones(2, "f4") / 5
        file["reward"], file["discount"] = rows, np.ones(10)
        file["step_type"] = np.where(rows == 0, 0, np.where(rows == 4, 2, 1))
    source = open_hdf5(tmp_path / "x.hdf5")
    episodes = list(source.read(0, pytest.fail))
    seen = [episode.observations[:, 0].tolist() for episode in episodes]
    assert seen == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert [episode.rewards.tolist() for episode in episodes] == [[1, 2, 3, 4]] * 2
    assert [float(episode.last_observation[0]) for episode in episodes] == [4, 9]
    assert [episode.truncated for episode in episodes] == [True, True]
