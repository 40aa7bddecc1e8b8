from __future__ import annotations

import json

import numpy as np
import pytest

from datamodules.checks import check
from rate.files import file_sha256
from tests.datamodules import samples
from tests.digests import renew_store


@pytest.mark.parametrize(
    "write", [samples.write_d4rl, samples.write_rate_npz, samples.write_memory_maze]
)
def test_valid_data_have_no_problems(tmp_path, write):
    report = check(write(tmp_path / "data"))
    assert not report.problems
    assert (report.episodes, report.steps) == (3, sum(samples.LENGTHS))


def test_every_bad_episode_is_counted(tmp_path):
    rewards = np.zeros(15, np.float32)
    rewards[[1, 11]] = np.inf
    report = check(samples.write_d4rl(tmp_path / "x.hdf5", rewards=rewards))
    assert report.episodes == 1
    assert [text.split("x.hdf5, ")[1] for text in report.problems] == [
        "episode 0: rewards: the value at step 1 is not finite",
        "episode 2: rewards: the value at step 1 is not finite",
    ]


def test_a_missing_time_out_is_a_warning(tmp_path):
    report = check(samples.write_d4rl(tmp_path / "x.hdf5", timeouts=np.zeros(15, bool)))
    assert not report.problems
    assert "episode 1: the next observation of step 5 is not that of step 6" in report.warnings[1]


def test_data_that_cannot_be_opened_are_a_problem(tmp_path):
    assert "no such file" in check(tmp_path / "absent").problems[0]


def change(store, name, index, value):
    """Changes a value of a store, and updates its checksum."""
    entry = store.manifest["arrays"][name]
    array = np.load(store.path / entry["file"], mmap_mode="r+")
    array[index] = value
    array.flush()
    entry["sha256"] = file_sha256(store.path / entry["file"])
    (store.path / "manifest.json").write_text(json.dumps(store.manifest))
    renew_store(store.path)


def test_stores(own_store):
    assert not check(own_store.path).problems
    change(own_store, "returns_to_go", 7, 99)
    (problem,) = check(own_store.path).problems
    assert "episode 2: the return-to-go at step 1 is 99, but the rewards" in problem
    change(own_store, "actions", (0, 1), np.nan)
    assert "episode 0: actions: the value at step 0" in check(own_store.path).problems[0]
    change(own_store, "terminated", 3, False)
    change(own_store, "truncated", 3, False)
    assert "1 episodes end with neither" in check(own_store.path).warnings[0]
    (own_store.path / "rewards.npy").write_bytes(b"x")
    assert "rewards.npy" in check(own_store.path).problems[0]
