from __future__ import annotations

import contextlib

import numpy as np
import pytest
from gymnasium import spaces

from datamodules.episodes import DatasetError
from datamodules.readers.npz_files import open_npz_files
from datamodules.source import Checked, refuse
from tests.datamodules.samples import LENGTHS, write_rate_npz


def one(folder, **changes):
    """The second file of a folder, changed."""

    def change(number, data):
        if number == 1:
            data.update(changes)
            for key in [key for key, value in data.items() if value is None]:
                del data[key]

    return write_rate_npz(folder, change=change)


def test_vizdoom(tmp_path):
    source = open_npz_files(write_rate_npz(tmp_path / "data"))
    episodes = list(Checked(source))
    assert [len(episode) for episode in episodes] == list(LENGTHS)
    assert episodes[0].observations.dtype == np.uint8
    assert episodes[1].actions.tolist() == [0, 1, 2, 0, 1, 2]
    assert episodes[1].rewards.tolist() == list(range(6))
    assert episodes[0].terminated
    assert source.spec.name == "two_colors"
    assert (source.num_episodes, source.num_steps) == (3, sum(LENGTHS))
    assert len(list(source.read(2, pytest.fail))) == 1


def test_minigrid_gets_its_bytes_back(tmp_path):
    bytes_ = open_npz_files(write_rate_npz(tmp_path / "minigrid-a", shape=(3, 84, 84)))
    floats = open_npz_files(write_rate_npz(tmp_path / "minigrid-b", shape=(3, 84, 84), scale=255))
    assert floats.spec == bytes_.spec
    assert floats.spec.name == "minigrid_memory"
    for found, wanted in zip(Checked(floats), Checked(bytes_), strict=True):
        assert found.observations.dtype == np.uint8
        np.testing.assert_array_equal(found.observations, wanted.observations)


def test_vectors_continuous_actions_and_time_limits(tmp_path):
    def change(number, data):
        data["obs"] = np.random.default_rng(number).standard_normal((len(data["reward"]) + 1, 3))
        data["action"] = np.full((len(data["reward"]), 1), 2.0)
        data["done"][:] = False

    source = open_npz_files(write_rate_npz(tmp_path / "pendulum", change=change))
    (first, *_) = Checked(source)
    assert first.observations.shape == (4, 3)
    assert first.last_observation.shape == (3,)
    assert first.truncated
    assert source.spec.action_space == spaces.Box(1, 3, (1,))


def test_robots_have_two_observations_and_learn_from_success(tmp_path):
    def change(number, data):
        steps = len(data["reward"])
        data["rgb"] = np.zeros((steps, 128, 128, 6), np.uint8)
        data["joints"] = np.zeros((steps, 25), np.float32)
        data["action"] = np.zeros((steps, 8), np.float32)
        data["success"] = np.arange(steps) == steps - 1
        del data["obs"]

    source = open_npz_files(write_rate_npz(tmp_path / "robot", change=change))
    (first, *_) = Checked(source)
    assert sorted(first.observations) == ["joints", "rgb"]
    assert first.rewards.tolist() == [0, 0, 0, 1]


BAD = {
    "missing": ({"reward": None}, "there are no rewards; it has obs.*--zero-rewards"),
    "rewards": ({"reward": np.zeros(5)}, "reward has 5 steps, but action has 6"),
    "frames": ({"obs": np.zeros((5, 3, 64, 112), np.uint8)}, "obs has 5 rows"),
    "many frames": ({"obs": np.zeros((8, 3, 64, 112), np.uint8)}, "obs has 8 rows"),
    "done": ({"done": np.array([0, 0, 2, 0, 0, 1])}, "done is 2 at row 2, neither 0 nor 1"),
    "empty": ({"action": np.zeros(0, int)}, "no steps"),
    "nan": ({"reward": np.array([0, 1, np.nan, 0, 0, 0])}, "rewards: the value at step 2"),
    "action": ({"action": np.full(6, 7)}, "actions: 7 at step 0 is outside the space Discrete"),
    "texts": ({"reward": np.array(["a"] * 6)}, "reward holds <U1"),
    "objects": ({"reward": np.array([{}] * 6, dtype=object)}, "reward holds object"),
    "shape": ({"obs": np.zeros((6, 3, 64, 64), np.uint8)}, r"have shape \(3, 64, 64\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_its_file_or_skipped(tmp_path, name):
    changes, message = BAD[name]
    source = open_npz_files(one(tmp_path / "data", **changes))
    with pytest.raises(DatasetError, match=message) as error:
        list(Checked(source))
    assert "train_data_1.npz" in str(error.value)
    kept = Checked(source, on_bad=lambda error: None)
    assert [len(episode) for episode in kept] == [4, 3]
    assert kept.skipped == 1


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file(tmp_path, kept):
    folder = write_rate_npz(tmp_path / "data")
    path = folder / "train_data_0.npz"
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
    with pytest.raises(DatasetError, match=r"train_data_0\.npz: not a whole \.npz file"):
        list(open_npz_files(folder).read(0, refuse))
    assert open_npz_files(folder).num_episodes == 3  # the others tell the spaces


def test_a_folder_of_nothing_but_damage(tmp_path):
    (tmp_path / "0.npz").write_bytes(b"junk")
    with pytest.raises(DatasetError, match=r"0\.npz: not a whole"):
        open_npz_files(tmp_path)
    with pytest.raises(DatasetError, match=r"no \.npz files"):
        open_npz_files(tmp_path / "..")


def test_mutations_raise_nothing_else(tmp_path):
    path = write_rate_npz(tmp_path / "data", shape=(2,)) / "train_data_1.npz"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(whole)
        changed[rng.integers(0, len(whole))] = rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(DatasetError):
            list(open_npz_files(path.parent).read(0, lambda error: None))


def test_one_flat_file_of_episodes_of_one_length(tmp_path):
    """Ends at every 10 steps are a time limit's, whatever they are called."""
    ends = np.arange(30) % 10 == 9
    for name in ("terminals", "dones"):
        columns = {"observations": np.zeros((30, 3), np.float32), name: ends}
        path = tmp_path / f"{name}.npz"
        np.savez(path, actions=np.arange(30) % 2, rewards=np.ones(30), **columns)
        episodes = list(Checked(open_npz_files(path)))
        assert [len(episode) for episode in episodes] == [10, 10, 10]
        kinds = [(episode.terminated, episode.truncated) for episode in episodes]
        assert kinds == [(name == "dones", name == "terminals")] * 3
