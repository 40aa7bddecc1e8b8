from __future__ import annotations

import contextlib
import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from datamodules.episodes import DatasetError, validate_episode
from datamodules.readers.memory_maze import read_npz, read_npz_folder
from datamodules.readers.npz import open_npz
from rate.envs.memory_maze import memory_maze_spec

ROWS = 5


def arrays(rows=ROWS):
    """Returns rows whose frames, actions and rewards are their number."""
    number = np.arange(rows)
    frames = np.broadcast_to(number[:, None, None, None], (rows, 64, 64, 3)).astype(np.uint8)
    return frames, np.eye(6)[number % 6], number.astype(np.float32)


def taken(**changes):
    """The layout with `obs`: actions taken on the frame of their row."""
    frames, actions, rewards = arrays()
    return {"obs": frames, "action": actions, "reward": rewards, **changes}


def led_to(**changes):
    """The layout with `image`: action and reward of a row precede its frame."""
    frames, actions, rewards = arrays()
    actions[0] = 0
    extra = {"maze_layout": np.ones((ROWS, 9, 9), np.uint8), "target_color": np.ones((ROWS, 3))}
    return {"image": frames, "action": actions, "reward": rewards, **extra, **changes}


def write(path, contents):
    np.savez_compressed(path, **contents)
    return path


@pytest.mark.parametrize("action", ["one-hot", "bool", "index"])
@pytest.mark.parametrize("done", [None, False, True])
def test_actions_taken_on_their_rows_frame(tmp_path, action, done):
    contents = taken()
    contents["action"] = {
        "one-hot": contents["action"],
        "bool": contents["action"].astype(bool),
        "index": np.arange(ROWS, dtype=np.int32),
    }[action]
    if done is not None:
        contents["done"] = np.arange(ROWS) == (ROWS - 1 if done else ROWS)
    episode = read_npz(write(tmp_path / "train_data_0.npz", contents))
    assert len(episode) == ROWS
    np.testing.assert_array_equal(episode.actions, np.arange(ROWS))
    np.testing.assert_array_equal(episode.observations[:, 0, 0, 0], np.arange(ROWS))
    np.testing.assert_array_equal(episode.rewards, np.arange(ROWS))
    assert (episode.terminated, episode.truncated) == (False, True)
    validate_episode(episode, memory_maze_spec(), "file", 0)


@pytest.mark.parametrize("key", ["image", "obs"])
def test_actions_that_precede_the_frame_of_their_row(tmp_path, key):
    contents = led_to()
    contents[key] = contents.pop("image")
    episode = read_npz(write(tmp_path / "0.npz", contents))
    assert len(episode) == ROWS - 1
    np.testing.assert_array_equal(episode.observations[:, 0, 0, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(episode.actions, [1, 2, 3, 4])
    np.testing.assert_array_equal(episode.rewards, [1, 2, 3, 4])
    validate_episode(episode, memory_maze_spec(), "file", 0)


def test_files_with_image_are_always_shifted(tmp_path):
    contents = led_to(action=np.arange(ROWS))
    np.testing.assert_array_equal(
        read_npz(write(tmp_path / "0.npz", contents)).actions, range(1, 5)
    )


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 9, 100):
        write(tmp_path / f"train_data_{number}.npz", taken(reward=np.full(ROWS, number)))
    (tmp_path / "README.txt").write_text("not data")
    episodes = read_npz_folder(tmp_path)
    assert [int(episode.rewards[0]) for episode in episodes] == [9, 10, 100]


def test_a_folder_without_data(tmp_path):
    with pytest.raises(DatasetError, match=r"no \.npz files"):
        next(read_npz_folder(tmp_path))


TWO = np.eye(6)[:ROWS] + np.eye(6)[1 : ROWS + 1]
HALF = np.eye(6)[:ROWS] / 2
NOT_A_NUMBER = np.where(np.arange(ROWS) == 2, np.nan, 1.0)
BAD = {
    "missing key": (lambda: {"obs": arrays()[0], "reward": arrays()[2]}, "no key 'action'.*obs"),
    "no frames": (lambda: {"action": arrays()[1], "reward": arrays()[2]}, "no key 'obs'"),
    "float frames": (lambda: taken(obs=arrays()[0] / 255), "obs is float64"),
    "small frames": (lambda: taken(obs=arrays()[0][:, :32]), r"obs is uint8 \(5, 32, 64, 3\)"),
    "large frames": (lambda: taken(obs=np.zeros((2, 80, 64, 3), np.uint8)), "obs is uint8"),
    "scalar": (lambda: taken(obs=np.uint8(3)), r"obs has shape \(\)"),
    "two ones": (lambda: taken(action=TWO), "action: row 0 is"),
    "half": (lambda: taken(action=HALF), "action: row 0 is"),
    "no one later": (lambda: led_to(action=np.eye(6)[:ROWS] * 0), "action: row 1 is"),
    "index": (lambda: taken(action=np.array([0, 1, 6, 2, 3])), "action: row 2 is 6"),
    "seven actions": (lambda: taken(action=np.eye(7)[:ROWS]), "neither one-hot"),
    "float indices": (lambda: taken(action=np.arange(ROWS) / 1.0), "neither one-hot"),
    "few actions": (lambda: taken(action=arrays()[1][:4]), "action has 4 rows.*5 frames"),
    "few rewards": (lambda: taken(reward=arrays()[2][:4]), "reward has 4 rows.*5 frames"),
    "reward columns": (lambda: taken(reward=np.zeros((ROWS, 2))), "reward has shape"),
    "reward is nan": (lambda: taken(reward=NOT_A_NUMBER), "reward: row 2 is not finite"),
    "text": (lambda: taken(reward=np.array(["a"] * ROWS)), "reward holds <U1"),
    "done early": (lambda: taken(done=np.arange(ROWS) == 1), "done: row 1 ends"),
    "done columns": (lambda: taken(done=np.zeros((ROWS, 1))), "done has shape"),
    "few done": (lambda: taken(done=np.zeros(4)), "done has 4 rows"),
    "empty": (lambda: {key: value[:0] for key, value in taken().items()}, "0 rows"),
    "one frame": (lambda: {key: value[:1] for key, value in led_to().items()}, "1 rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_data_are_named_with_their_place(name, tmp_path):
    make, message = BAD[name]
    path = write(tmp_path / "train_data_7.npz", make())
    with pytest.raises(DatasetError, match=message) as error:
        read_npz(path)
    assert str(path) in str(error.value)


class Trap:
    def __reduce__(self):
        return pickle.loads, (b"this must not be loaded",)


def test_pickled_objects_are_not_loaded(tmp_path):
    path = tmp_path / "0.npz"
    np.savez(path, **taken(reward=np.array([Trap()] * ROWS, dtype=object)))
    with pytest.raises(DatasetError, match="reward holds object"):
        read_npz(path)


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9, 0.999])
def test_a_truncated_file(tmp_path, kept):
    path = write(tmp_path / "0.npz", taken())
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
    with pytest.raises(DatasetError, match=r"0\.npz: not a whole \.npz file"):
        read_npz(path)


def test_damaged_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (ROWS, 64, 64, 3)).astype(np.uint8)
    path = write(tmp_path / "0.npz", taken(obs=frames))
    data = path.read_bytes()
    for place in range(200, len(data), len(data) // 40):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with contextlib.suppress(DatasetError):
            # No array depends on some of the bytes, for example those of a date.
            np.testing.assert_array_equal(read_npz(path).observations, frames)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10**9, 64, 64, 3), "is not"),
        ((5, 10**9), "is not"),
        ((5, -1), "is not"),
        ((9,), "is not"),
    ],
)
def test_a_header_that_disagrees_with_the_data_is_refused(tmp_path, shape, message):
    path = write(tmp_path / "0.npz", taken())
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in taken().items():
            with archive.open(f"{key}.npy", "w") as file:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                if key == "reward":
                    header["shape"] = shape
                np.lib.format.write_array_header_1_0(file, header)
                file.write(array.tobytes())
    with pytest.raises(DatasetError, match=f"reward.*{message}"):
        read_npz(path)


def test_a_size_that_the_file_cannot_hold_is_not_allocated(tmp_path):
    """The sizes in the archive's directory are not trusted either."""
    path, claimed = write(tmp_path / "0.npz", taken()), 3_000_000_000
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (claimed,)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("obs.npy", header.getvalue())
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, header.tell() + claimed)
    path.write_bytes(data)
    with open_npz(path) as npz:
        tracemalloc.start()
        with pytest.raises(DatasetError, match="obs is not uint8"):
            npz.array("obs")
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()


def test_another_version_of_the_format(tmp_path):
    path = write(tmp_path / "0.npz", taken())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("done.npy", b"\x93NUMPY\x03\x00")
    with pytest.raises(DatasetError, match=r"done is damaged.*version \(3, 0\)"):
        read_npz(path)


def test_fortran_order(tmp_path):
    contents = {key: np.asfortranarray(value) for key, value in taken().items()}
    episode = read_npz(write(tmp_path / "0.npz", contents))
    np.testing.assert_array_equal(episode.observations[:, 5, 7, 1], np.arange(ROWS))
