from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

from datamodules import DatasetError, Store
from datamodules.convert import convert_to_minari
from datamodules.episode_table import EpisodeTable, summarise, table_path
from datamodules.formats import open_source
from datamodules.minari_writer import keeps_pixels
from datamodules.npy import NpyWriter
from datamodules.readers.minari import open_minari
from rate.errors import ConfigError
from tests.datamodules.walk import SEEDS, SPEC, make_collector, run
from tests.processes import PATIENCE, alive

posix = pytest.mark.skipif(os.name != "posix", reason="kills processes")
lossless = pytest.mark.skipif(not keeps_pixels(), reason="this Minari changes pixels")


def contents(folder):
    """Returns the bytes of all files that are not hidden; asserts that no partial file is left."""
    files = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    assert not [path for path in files if ".partial-" in str(path) or ".tmp" in str(path)]
    return {path: file.read_bytes() for path, file in files.items() if path.name[0] != "."}


def pids(log):
    return {int(pid) for file in log.iterdir() for pid in file.read_text().split()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected")
    return folder, run(folder)


def test_the_table_of_a_long_collection_stays_on_the_disk(tmp_path):
    episode, table = make_collector().collect(7), EpisodeTable(tmp_path, 0)
    tracemalloc.start()
    for _ in range(3000):
        table.append(episode)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    table.sync()
    assert most < 100_000
    again = EpisodeTable(tmp_path, 2000)  # after a crash: of 3000 rows 2000 are in the store
    again.append(episode)
    again.finish(tmp_path / "walk.csv")
    assert len((tmp_path / "walk.csv").read_text().splitlines()) == 1 + 2001
    assert [path.name for path in tmp_path.iterdir()] == ["walk.csv"]


def test_the_store_holds_the_episodes_in_the_order_of_the_seeds(made):
    folder, path = made
    assert path == folder / "walk"
    store = Store.open(path, verify=True)
    assert store.spec == SPEC
    assert store.arrays["seeds"].tolist() == SEEDS
    for index, seed in enumerate(SEEDS):
        wanted, found = make_collector().collect(seed), store.episode(index)
        for key, array in wanted.observations.items():
            np.testing.assert_array_equal(found.observations[key], array)
            assert found.observations[key].dtype == array.dtype
        np.testing.assert_array_equal(found.actions, wanted.actions)
        np.testing.assert_array_equal(found.rewards, wanted.rewards.astype(np.float32))
        assert (found.terminated, found.truncated) == (False, True)


def test_a_table_describes_the_returns_of_the_data(made):
    episodes = [make_collector().collect(seed) for seed in SEEDS]
    lengths = [len(episode) for episode in episodes]
    items = [episode.outcome["items"] for episode in episodes]
    summary = summarise(made[1])
    assert summary["length"] == (np.mean(lengths), min(lengths), max(lengths))
    assert summary["items"] == (np.mean(items), min(items), max(items))
    assert list(summary) == ["length", "return", "terminated", "truncated", "success", "items"]
    assert table_path(made[1]).read_text().splitlines()[0].startswith("seed,length,return,")
    with pytest.raises(DatasetError, match=r"absent\.csv: the table of the episodes cannot be"):
        summarise(made[1].with_name("absent"))


@lossless
def test_a_lossless_minari_data_set_is_made_on_request(made, tmp_path):
    path = convert_to_minari(open_source(made[1]), tmp_path / "walk-v0")
    dataset = open_minari(path)
    assert dataset.total_episodes == len(SEEDS)
    assert dataset.observation_space == SPEC.observation_space
    for index, seed in enumerate(SEEDS):
        wanted, found = make_collector().collect(seed), dataset[index]
        for key, array in wanted.observations.items():
            np.testing.assert_array_equal(found.observations[key][:-1], array)
        np.testing.assert_array_equal(found.actions, wanted.actions)


def test_two_workers_give_the_same_files(made, tmp_path):
    reports = []
    run(tmp_path, workers=2, on_progress=lambda *report: reports.append(report))
    assert contents(tmp_path) == contents(made[0])
    assert reports == [("collecting", number, len(SEEDS)) for number in range(len(SEEDS) + 1)]


def test_data_are_collected_once_and_other_data_refused(tmp_path):
    path = run(tmp_path)
    before = contents(tmp_path)
    log = tmp_path.with_name("log")
    assert run(tmp_path, log=log) == path
    assert not list(log.iterdir())
    with pytest.raises(DatasetError, match="walk: holds other data; delete it"):
        run(tmp_path, version=2)
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    run(tmp_path)
    assert contents(tmp_path) == before


@posix
def test_a_worker_that_dies_is_replaced_and_its_episode_played_again(made, tmp_path):
    log = tmp_path / "log"
    run(tmp_path / "data", workers=2, log=log, failures={3: 2, SEEDS[2]: 1}, how="kill")
    assert contents(tmp_path / "data") == contents(made[0])
    plays = {seed: len((log / str(seed)).read_text().split()) for seed in SEEDS}
    assert plays == dict.fromkeys(SEEDS, 1) | {3: 3, SEEDS[2]: 2}
    assert not any(alive(pid) for pid in pids(log))


@posix
def test_an_episode_that_always_kills_its_worker_is_named(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(DatasetError, match=r"walk: the episode of seed 12 failed 3 times.*SIGKILL"):
        run(tmp_path / "data", workers=2, log=log, failures={12: 9}, how="kill")
    assert len((log / "12").read_text().split()) == 3
    assert not any(alive(pid) for pid in pids(log))


@posix
def test_a_worker_that_hangs_is_replaced_and_its_episode_played_again(made, tmp_path):
    log = tmp_path / "log"
    run(tmp_path / "data", workers=2, log=log, failures={3: 1}, how="hang", timeout=10)
    assert contents(tmp_path / "data") == contents(made[0])
    plays = {seed: len((log / str(seed)).read_text().split()) for seed in SEEDS}
    assert plays == dict.fromkeys(SEEDS, 1) | {3: 2}
    assert not any(alive(pid) for pid in pids(log))


@posix
def test_an_episode_that_always_hangs_is_named(tmp_path):
    log, what = tmp_path / "log", r"seed 12 failed 3 times: it did not answer within 5 seconds"
    with pytest.raises(DatasetError, match=what):
        run(tmp_path / "data", workers=2, log=log, failures={12: 9}, how="hang", timeout=5)
    assert len((log / "12").read_text().split()) == 3
    assert not any(alive(pid) for pid in pids(log))


@pytest.mark.long
def test_slow_steps_do_not_count_as_a_hang(made, tmp_path):
    run(tmp_path / "data", workers=3, log=tmp_path / "log", delay=1.2, timeout=5)
    assert contents(tmp_path / "data") == contents(made[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_collector(made, tmp_path, workers):
    log = tmp_path / "log"
    with pytest.raises(DatasetError, match=r"seed 5 failed 3 times: (?s:.*)the engine has a probl"):
        run(tmp_path / "data", workers, log, failures={5: 9}, how="bug")
    with pytest.raises(ConfigError, match=r"^the engine has a problem$"):  # not retried
        run(tmp_path / "data", workers, log, failures={5: 9}, how="user")
    assert len((log / "5").read_text().split()) == 4
    run(tmp_path / "data", workers, log, failures={5: 5}, how="bug")
    assert len((log / "5").read_text().split()) == 6
    assert contents(tmp_path / "data") == contents(made[0])


def test_a_full_disk_keeps_saved_episodes(made, tmp_path, monkeypatch):
    data, log, append, calls = tmp_path / "data", tmp_path / "log", NpyWriter.append, []

    def full(writer, rows):
        calls.append(writer.path.name)
        if calls.count("actions.npy") == 3:
            writer._file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        append(writer, rows)

    with monkeypatch.context() as patch:
        patch.setattr(NpyWriter, "append", full)
        with pytest.raises(
            DatasetError, match=r"\(No space left on device\)\. .*make room.*is kept"
        ):
            run(data, 1, log, save_seconds=0)
    assert not (data / "walk").exists()
    run(data, 1, log)
    assert contents(data) == contents(made[0])
    plays = {seed: len((log / str(seed)).read_text().split()) for seed in SEEDS}
    assert plays == dict.fromkeys(SEEDS, 1) | {SEEDS[2]: 2}  # the first two were not played again


@pytest.mark.parametrize("file", ["unfinished.json", "actions.npy", "episodes.jsonl"])
def test_a_damaged_unfinished_store_is_named(tmp_path, file):
    with pytest.raises(ConfigError):
        run(tmp_path / "data", log=tmp_path / "log", failures={SEEDS[-1]: 9}, how="user")
    (partial,) = (tmp_path / "data").glob(".walk.partial-*")
    (partial / file).write_text("{")
    with pytest.raises(DatasetError, match=rf"{file}: damaged.*delete its folder"):
        run(tmp_path / "data")


def test_data_of_changed_settings_are_not_mixed(made, tmp_path):
    log, data = tmp_path / "log", tmp_path / "data"
    with pytest.raises(ConfigError):
        run(data, log=log, failures={9: 9}, how="user")
    with pytest.raises(ConfigError):
        run(data, log=log, failures={9: 9}, how="user", version=2)
    assert len((log / "7").read_text().split()) == 2
    run(data, log=log)
    assert len((log / "7").read_text().split()) == 2
    assert contents(data) == contents(made[0])


COLLECT = (
    "import sys; from tests.datamodules.walk import run; "
    "run(*sys.argv[1:2], 2, {!r}, delay=0.1, save_seconds=0)"
)


def saved(data):
    """Returns the number of episodes that an unfinished collection has saved."""
    for state in data.glob(".walk.partial-*/unfinished.json"):
        return json.loads(state.read_text())["position"]
    return 0


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_collection_is_resumed(made, tmp_path, number):
    log, data = tmp_path / "log", tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", COLLECT.format(str(log)), str(data)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE
    while (finished := saved(data)) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    error = process.communicate(timeout=PATIENCE)[1]
    if number == signal.SIGINT:
        assert "KeyboardInterrupt: Stopped after" in error
        assert error.count("Traceback") == 1
    while any(alive(pid) for pid in pids(log)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (data / "walk").exists()
    run(data, workers=2, log=log)
    assert contents(data) == contents(made[0])
    for seed in SEEDS[:finished]:
        assert len((log / str(seed)).read_text().split()) == 1


def test_two_collections_at_once(made, tmp_path):
    log, data = tmp_path / "log", tmp_path / "data"
    threads = [threading.Thread(target=run, args=(data, 1, log)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(data) == contents(made[0])
    assert all(len((log / str(seed)).read_text().split()) == 1 for seed in SEEDS)


def test_invalid_arguments_are_refused(tmp_path, monkeypatch):
    for seeds in ([], [1, 1], [-1], [1 << 63]):
        monkeypatch.setattr("tests.datamodules.walk.SEEDS", seeds)
        with pytest.raises(ValueError, match="walk: there must be seeds"):
            run(tmp_path)
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="the data cannot be written"):
        run(tmp_path / "file" / "data")


def test_the_manifest_names_the_seeds(made):
    provenance = json.loads((made[1] / "manifest.json").read_text())["provenance"]
    assert provenance["collector"] == "chance-1"
    assert len(provenance["seeds_sha256"]) == 64
    assert multiprocessing.active_children() == []


def test_a_script_needs_no_main_guard_and_may_define_the_environment(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.datamodules import walk\n"
        "from datamodules.collector import Collector\n"
        "class Mine(walk.Walk): pass\n"
        "print('begins')\n"
        "walk.make_collector = lambda: Collector(Mine, walk.Chance)\n"
        "walk.run(Path(sys.argv[1]), workers=2)\nprint('ends')\n"
    )
    done = subprocess.run(
        [sys.executable, script, tmp_path / "data"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "begins\nends\n"), done.stderr
    assert Store.open(tmp_path / "data" / "walk", verify=True).num_episodes == len(SEEDS)
