"""Stores are written atomically."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from datamodules import DatasetError, Store, write_store


def test_no_store_is_left_if_an_episode_is_invalid(tmp_path, spec, make_episode):
    def episodes():
        yield make_episode(4)
        yield replace(make_episode(4), rewards=np.array([0, np.nan, 0, 0]))

    with pytest.raises(DatasetError, match=r"bad\.h5, episode 1: rewards: the value at step 1"):
        write_store(episodes(), tmp_path / "s", spec, {"source": "bad.h5"})
    with pytest.raises(DatasetError, match="no episodes"):
        write_store([], tmp_path / "s", spec, {})
    assert [path.name for path in tmp_path.iterdir() if "lock" not in path.name] == []


def test_an_existing_store_is_not_overwritten(own_store, spec, make_episode):
    with pytest.raises(DatasetError, match="already exists"):
        write_store([make_episode(3)], own_store.path, spec, {})
    Store.open(own_store.path, verify=True)


def _pack_for_ever(path, spec, episode):
    def episodes():
        while True:
            yield episode
            time.sleep(0.001)

    write_store(episodes(), path, spec, {})


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_writer_leaves_no_store_and_the_next_one_cleans_up(tmp_path, spec, make_episode):
    path = tmp_path / "s"
    process = multiprocessing.get_context("fork").Process(
        target=_pack_for_ever, args=(path, spec, make_episode(50))
    )
    process.start()
    while not list(tmp_path.glob(".s.partial-*/actions.npy")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (left,) = tmp_path.glob(".s.partial-*")
    (left / "left").touch()
    assert not path.exists()
    with pytest.raises(DatasetError, match="not a trajectory store"):
        Store.open(left)
    assert write_store([make_episode(3)], path, spec, {}).num_episodes == 1
    assert not left.exists()


def test_one_of_two_concurrent_writers_wins_with_a_complete_store(tmp_path, spec, make_episode):
    results = []

    def run():
        try:
            write_store([make_episode(5)] * 50, tmp_path / "s", spec, {})
            results.append("made")
        except DatasetError as error:
            results.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result == "made" for result in results) == [False, True]
    assert Store.open(tmp_path / "s", verify=True).num_episodes == 50
