from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from datamodules import DatasetError
from datamodules.formats import FORMATS, Options, find_format, find_store, open_source
from rate.envs.two_colors import two_colors_spec
from tests.datamodules import library_samples, samples

WRITERS = {
    "store": None,
    "minari": lambda path: samples.write_minari(path.parent, f"{path.name}-v0"),
    "lerobot": library_samples.write_lerobot_3,
    "rlds": library_samples.write_rlds,
    "torchrl": library_samples.write_torchrl,
    "huggingface": library_samples.write_hf_dataset,
    "table": library_samples.write_parquet,
    "d3rlpy": library_samples.write_d3rlpy,
    "robomimic": library_samples.write_robomimic,
    "d4rl": samples.write_d4rl,
    "hdf5": samples.write_groups,
    "rate-tmaze": samples.write_tmaze,
    "trajectories": samples.write_trajectories,
    "memory-maze": samples.write_memory_maze,
    "npz": samples.write_rate_npz,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_recognised_by_its_contents(tmp_path, own_store, name):
    # All files have the same name without a suffix, so that only the contents differ.
    path = own_store.path if name == "store" else WRITERS[name](tmp_path / "data")
    assert find_format(path).name == name
    source = open_source(path)
    assert source.format == name
    assert all(file.is_file() for file in source.files)
    lengths = [len(episode) for episode in source.read(0, pytest.fail)]
    assert source.num_episodes == len(lengths)
    assert source.num_steps in (sum(lengths), None)
    # From any episode on, as needed by a resumed conversion.
    for start in range(len(lengths) + 1):
        assert [len(episode) for episode in source.read(start, pytest.fail)] == lengths[start:]


def test_every_format_is_tested_here():
    ours = {item.name for item in FORMATS} - {"dqn-replay", "rl-unplugged", "tianshou"}
    assert ours == WRITERS.keys()


def test_an_unknown_format_gets_a_list_of_formats(tmp_path):
    with pytest.raises(DatasetError, match="there is no such file or folder"):
        open_source(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DatasetError, match="none of:") as error:
            open_source(path)
        assert all(item.what in str(error.value) for item in FORMATS)


def test_damaged_files_still_have_a_format(tmp_path, own_store):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1])[:5])
    (tmp_path / "x.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (own_store.path / "manifest.json").write_text("{")
    for path, name in (
        (tmp_path / "x.pkl", "trajectories"),
        (tmp_path / "x.hdf5", "hdf5"),
        (own_store.path, "store"),
    ):
        assert find_format(path).name == name
        with pytest.raises(DatasetError, match=path.name):
            open_source(path)


def test_hdf5_of_something_else(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros(3)
    with pytest.raises(
        DatasetError, match=r"there are no observations; it has actions.*--map THEIRS=observations"
    ):
        open_source(tmp_path / "x.hdf5")


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        (
            "hopper_medium-v2.hdf5",
            "v4",
            "recorded in Hopper-v2, but rollouts are made in Hopper-v4",
        ),
        ("hopper-medium-replay-v0.hdf5", "v4", "recorded in Hopper-v2"),
        ("expert_data_Hopper-v4.hdf5", "v4", "recorded in Hopper-v4, and rollouts are made in it"),
        ("Hopper-v5-mine.hdf5", "v5", None),
        ("my_hopper.hdf5", "v4", "by their name Hopper-v4 is assumed"),
        ("hopper-medium-sac-v4-100-seed0.hdf5", "v4", "by their name Hopper-v4 is assumed"),
        ("other.hdf5", None, None),
    ],
)
def test_a_file_name_shows_the_environment(tmp_path, name, version, words):
    source = open_source(samples.write_d4rl(tmp_path / name))
    assert source.spec.options.get("version") == version
    notes = [note for note in source.notes if "recorded in" in note]
    assert (len(notes) == 1 and words in notes[0]) if words else not notes


def test_options_override_the_environment(tmp_path):
    path = samples.write_rate_npz(tmp_path / "data")
    spec = two_colors_spec()
    assert open_source(path, Options(spec=spec)).spec == spec
    path = samples.write_d4rl(tmp_path / "x.hdf5", timeouts=None)
    assert open_source(path, Options(time_limit=3)).num_episodes == 6


def test_training_names_the_converter(tmp_path):
    path = samples.write_d4rl(tmp_path / "x.hdf5")
    with pytest.raises(DatasetError, match=r"it is a D4RL file \(HDF5\).*scripts/convert\.py .*x"):
        find_store(path)
    with pytest.raises(DatasetError, match=r"check the path.*scripts/convert\.py SOURCE DEST"):
        find_store(tmp_path)
