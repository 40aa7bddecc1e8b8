from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules import DatasetError, Store
from datamodules.checks import check
from datamodules.convert import convert, convert_to_minari, predicted_bytes
from datamodules.episodes import observation_items
from datamodules.formats import open_source
from datamodules.minari_writer import keeps_pixels
from datamodules.options import Options
from rate.files import file_sha256
from tests.datamodules import samples

WRITERS = {
    "minari": lambda path: samples.write_minari(path.parent, f"{path.name}-v0"),
    "d4rl": samples.write_d4rl,
    "tmaze": samples.write_tmaze,
    "trajectories": samples.write_trajectories,
    "memory-maze": samples.write_memory_maze,
    "npz": samples.write_rate_npz,
}
needs_pixels = pytest.mark.skipif(not keeps_pixels(), reason="this Minari changes pixels")


def same(found, wanted, types=True):
    """Asserts that all arrays and flags of two episodes are equal."""
    pairs = [(found.actions, wanted.actions), (found.rewards, wanted.rewards)]
    ours, theirs = observation_items(found.observations), observation_items(wanted.observations)
    assert ours.keys() == theirs.keys()
    pairs += [(ours[key], theirs[key]) for key in ours]
    if wanted.last_observation is not None:
        last = observation_items(wanted.last_observation)
        pairs += [(observation_items(found.last_observation)[key], last[key]) for key in last]
    for one, other in pairs:
        np.testing.assert_array_equal(one, other if types else np.asarray(other, one.dtype))
        assert not types or one.dtype == other.dtype
    assert (found.terminated, found.truncated) == (wanted.terminated, wanted.truncated)
    assert found.seed == wanted.seed


@pytest.mark.parametrize("name", WRITERS)
def test_a_store_of_every_format(tmp_path, name):
    path = WRITERS[name](tmp_path / "data")
    source = open_source(path)
    made = convert(source, tmp_path / "made" / "store")
    store = Store.open(made, verify=True)
    for number, episode in enumerate(source.read(0, pytest.fail)):
        same(store.episode(number), episode, types=False)
    provenance = store.manifest["provenance"]
    assert provenance["source"] == path.name
    assert provenance["format"] == source.format
    root = path.parent
    assert provenance["sha256"] == {
        file.relative_to(root).as_posix(): file_sha256(file) for file in source.files
    }
    assert sorted(p.name for p in made.parent.iterdir()) == [
        ".store.generate.lock",
        ".store.lock",
        "store",
    ]
    if (size := predicted_bytes(source)) is not None:
        data = sum(file.stat().st_size - 256 for file in made.glob("*.npy"))
        assert size == pytest.approx(data, abs=8)  # there is one offset more than episodes
    images = [a for n, a in store.arrays.items() if n.startswith("observations") and a.ndim == 4]
    assert all(array.dtype == np.uint8 for array in images)


@needs_pixels
@pytest.mark.parametrize("name", WRITERS)
def test_minari_and_back_without_loss(tmp_path, name):
    source = open_source(WRITERS[name](tmp_path / "data"))
    direct = open_source(convert_to_minari(source, tmp_path / "direct-v0"))
    for found, wanted in zip(direct.read(0, pytest.fail), source.read(0, pytest.fail), strict=True):
        same(found, wanted)
    store = open_source(convert(source, tmp_path / "store"))
    back = open_source(convert_to_minari(store, tmp_path / "back-v0"))
    for found, wanted in zip(back.read(0, pytest.fail), store.read(0, pytest.fail), strict=True):
        same(found, wanted)
    # A second conversion changes nothing; another data set of the name is kept.
    assert convert_to_minari(store, tmp_path / "back-v0") == tmp_path / "back-v0"
    with pytest.raises(DatasetError, match="holds other data"):
        convert_to_minari(source, tmp_path / "back-v0")
    with pytest.raises(DatasetError, match="for example x-v0"):
        convert_to_minari(source, tmp_path / "x")


def test_integer_rewards_do_not_truncate_returns(tmp_path):
    def change(episodes):
        for episode in episodes:
            episode["rewards"] = np.full(len(episode["rewards"]), 2, np.int8) * 50

    path = samples.write_trajectories(tmp_path / "x.pkl", change=change)
    store = Store.open(convert(open_source(path), tmp_path / "store"))
    assert store.arrays["rewards"].dtype == np.float32
    assert store.arrays["returns_to_go"][:4].tolist() == [
        400,
        300,
        200,
        100,
    ]  # more than an int8 holds


def test_the_target_return_defaults_to_the_best_of_the_data(tmp_path):
    def change(episodes):
        for number, episode in enumerate(episodes):
            episode["rewards"] = np.full(len(episode["rewards"]), float(number))

    path = samples.write_trajectories(tmp_path / "x.pkl", change=change)
    store = Store.open(convert(open_source(path), tmp_path / "store"))
    assert store.spec.target_return == 6
    assert store.return_range == (0, 6)


def test_an_unrelated_file_is_not_overwritten(tmp_path, monkeypatch):
    """The error is raised before the source is read, because sources may be large."""
    source = open_source(samples.write_rate_npz(tmp_path / "two-colors"))
    monkeypatch.setattr("datamodules.convert.provenance", pytest.fail)
    (tmp_path / "text-v0").write_text("my own")
    (tmp_path / "folder-v0").mkdir()
    for make in (convert, convert_to_minari):
        for name in ("text-v0", "folder-v0"):
            with pytest.raises(DatasetError, match=name):
                make(source, tmp_path / name)
    assert (tmp_path / "text-v0").read_text() == "my own"
    assert not list((tmp_path / "folder-v0").iterdir())


def test_a_second_conversion_reuses_the_store_and_other_data_are_refused(tmp_path):
    path = samples.write_d4rl(tmp_path / "x.hdf5")
    made = convert(open_source(path), tmp_path / "store")
    before = (made / "manifest.json").stat().st_mtime_ns
    assert convert(open_source(path), tmp_path / "store") == made
    assert (made / "manifest.json").stat().st_mtime_ns == before
    samples.write_d4rl(path, lengths=(3, 3))
    with pytest.raises(DatasetError, match="holds other data; delete it"):
        convert(open_source(path), tmp_path / "store")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetError, match="is there already and is no store"):
        convert(open_source(path), tmp_path / "file")


KILLED = """
import os, signal, sys
from datamodules.convert import convert
from datamodules.checks import check
from datamodules.formats import open_source
from datamodules.options import Options
from rate.files import file_sha256

def tell(phase, done, total):
    if phase == "converting" and done == 6:
        os.kill(os.getpid(), signal.SIGKILL)

convert(open_source(sys.argv[1]), sys.argv[2], on_progress=tell, save_seconds=0)
"""


@pytest.mark.parametrize("name", ["d4rl", "trajectories", "memory-maze"])
def test_a_killed_conversion_is_resumed(tmp_path, name):
    path = WRITERS[name](tmp_path / "data", lengths=(3, 4, 2) * 4)
    wanted = convert(open_source(path), tmp_path / "whole")
    store = tmp_path / "store"
    ended = subprocess.run([sys.executable, "-c", KILLED, path, store], check=False, cwd=Path.cwd())
    assert ended.returncode == -signal.SIGKILL
    assert not store.exists()
    (partial,) = tmp_path.glob(".store.partial-*")
    with (partial / "actions.npy").open("ab") as file:
        file.write(b"what was not made durable")
    seen = []
    convert(
        open_source(path),
        store,
        on_progress=lambda phase, done, _: seen.append(done) if phase == "converting" else None,
    )
    assert seen == list(range(6, 13))  # the sixth had not been saved
    assert Store.open(store, verify=True).fingerprint == Store.open(wanted).fingerprint
    assert not list(tmp_path.glob(".store.partial-*"))


def test_a_conversion_of_a_changed_source_starts_over(tmp_path):
    path = samples.write_d4rl(tmp_path / "x.hdf5")

    def stop(phase, done, total):
        if phase == "converting" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        convert(open_source(path), tmp_path / "store", on_progress=stop, save_seconds=0)
    assert not (tmp_path / "store").exists()
    samples.write_d4rl(path, lengths=(5, 5))
    assert Store.open(convert(open_source(path), tmp_path / "store")).lengths.tolist() == [5, 5]
    assert not list(tmp_path.glob(".store.partial-*"))


def test_bad_episodes_end_the_conversion_or_are_counted(tmp_path):
    actions = np.zeros((15, 3), np.float32)
    actions[5, 1] = np.nan  # step 1 of the second episode
    source = open_source(samples.write_d4rl(tmp_path / "hopper-x.hdf5", actions=actions))
    with pytest.raises(DatasetError, match=r"hopper-x\.hdf5, episode 1: actions: the value"):
        convert(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    bad = []
    store = Store.open(convert(source, tmp_path / "store", on_bad=bad.append))
    assert store.lengths.tolist() == [4, 3]
    assert len(bad) == store.manifest["provenance"]["skipped"] == 1
    assert store.arrays["observations"][4, 0] == 2


def test_a_source_of_bad_episodes_only_is_refused(tmp_path):
    source = open_source(samples.write_d4rl(tmp_path / "x.hdf5", rewards=np.full(15, np.nan)))
    with pytest.raises(DatasetError, match="there are no episodes"):
        convert(source, tmp_path / "store", on_bad=lambda error: None)
    assert not (tmp_path / "store").exists()


def test_a_full_disk(tmp_path, monkeypatch):
    source = open_source(samples.write_d4rl(tmp_path / "x.hdf5"))
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DatasetError, match=r"will take .* GB, but only 1e-07 GB are free"):
        convert(source, tmp_path / "store")
    monkeypatch.undo()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match=r"cannot be written \(No space left on device\)"):
        convert(source, tmp_path / "store")
    monkeypatch.undo()
    assert convert(source, tmp_path / "store").is_dir()


def test_a_damaged_state_is_named(tmp_path):
    source = open_source(samples.write_d4rl(tmp_path / "x.hdf5"))

    def stop(phase, done, total):
        if phase == "converting" and done == 2:
            raise KeyboardInterrupt

    for file, contents in (("unfinished.json", "{"), ("actions.npy", "")):
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "store", on_progress=stop, save_seconds=0)
        (partial,) = tmp_path.glob(".store.partial-*")
        json.loads((partial / "unfinished.json").read_text())
        (partial / file).write_text(contents)
        with pytest.raises(DatasetError, match=file):
            convert(source, tmp_path / "store")
        shutil.rmtree(partial)


def test_clipped_actions_are_counted_or_kept_on_request(tmp_path):
    actions = np.zeros((15, 3), np.float32)
    actions[[1, 2, 5], [0, 1, 2]] = 5.13, 1.5, -2
    path = samples.write_d4rl(tmp_path / "hopper-x.hdf5", actions=actions)
    with pytest.warns(UserWarning, match=r"3 actions in 2 episodes were outside.*5\.13"):
        store = Store.open(convert(open_source(path), tmp_path / "clipped"))
    assert store.arrays["actions"][[1, 2, 5], [0, 1, 2]].tolist() == [1, 1, -1]
    assert store.manifest["provenance"]["clipped"] == 3
    report = check(path)
    assert not report.problems
    assert any("3 actions in 2 episodes" in warning for warning in report.warnings)
    kept = open_source(path, Options(keep_actions=True))
    store = Store.open(convert(kept, tmp_path / "kept"))
    assert store.arrays["actions"][1, 0] == np.float32(5.13)
    assert "clipped" not in store.manifest["provenance"]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("write", [samples.write_d4rl, samples.write_rate_npz])
def test_returns_beyond_float32_are_refused_by_name(tmp_path, kind, write):
    if write is samples.write_d4rl:
        path = write(tmp_path / "x.hdf5", rewards=np.full(15, 1e38, kind))
    else:
        rewards = {"reward": np.full(4, 1e38, kind)}
        path = write(tmp_path / "x", lengths=(4,), change=lambda _, data: data.update(rewards))
    with pytest.raises(DatasetError, match=r"rewards: the return from step 0 on, 4e\+38"):
        convert(open_source(path), tmp_path / "store")
    path = samples.write_d4rl(tmp_path / "y.hdf5", rewards=np.full(15, 1e39))
    with pytest.raises(DatasetError, match="rewards: the value at step 0 is too large for float32"):
        convert(open_source(path), tmp_path / "store")
