"""What a soak counts, and when it says that something grows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import soak, soak_table
from tests.processes import wait_until

CHILD = """\
import subprocess, sys, threading, time
files = [open(sys.executable, "rb") for _ in range(20)]
threads = [threading.Thread(target=time.sleep, args=(600,), daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("begun", flush=True)
time.sleep(600)
"""


def rows(values: Iterator[float] | Any, measure: str = "resident_mb") -> list[dict[str, Any]]:
    """Returns a sample every ten seconds."""
    return [{"seconds": 10.0 * index, measure: value} for index, value in enumerate(values)]


@pytest.fixture
def noise() -> Any:
    return np.random.default_rng(0).normal(0, 5, 200)


def test_noise_warm_up_and_killed_processes_are_flat(noise: Any) -> None:
    values = 500 + noise
    values[:40] *= np.linspace(0.2, 1, 40)  # imports
    values[60::6] = 300  # a worker was killed
    grows, numbers = soak_table.verdict(rows(values), "resident_mb")
    assert not grows
    assert "median " in numbers


def test_slow_growth_in_noise_is_told(noise: Any) -> None:
    values = 500 + noise + 0.2 * np.arange(200)  # 72 MB an hour
    grows, numbers = soak_table.verdict(rows(values), "resident_mb")
    assert grows
    per_hour = float(numbers.split(", ")[1].removesuffix(" an hour"))
    assert per_hour == pytest.approx(72, rel=0.1)


def test_one_more_file_every_minute_is_told() -> None:
    files = 20 + np.arange(200) // 6
    assert soak_table.verdict(rows(files, "descriptors"), "descriptors")[0]
    assert not soak_table.verdict(rows(0 * files + 20, "descriptors"), "descriptors")[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_files_threads_and_processes_of_all_descendants_are_counted() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    grandchild = None
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        wait_until(lambda: len(soak.descendants(child.pid)) == 2)
        _, grandchild = pids = soak.descendants(child.pid)
        held = soak.held_by([*pids, 1 << 30])  # one that does not exist
        assert held["processes"] == 2
        assert held["threads"] == 5
        assert 20 + 3 <= held["descriptors"] <= 40
        assert held["resident_mb"] > 5
    finally:
        child.kill()
        child.wait()
        if grandchild is not None:
            os.kill(grandchild, 9)


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = [{"part": "training", "seconds": 1.5, **dict.fromkeys(soak_table.MEASURES, 2.0)}]
    soak_table.write(made, tmp_path / "soak.csv")
    (row,) = soak_table.read(tmp_path / "soak.csv")
    assert {name: row["part"] if name == "part" else float(row[name]) for name in row} == made[0]
    soak_table.draw(soak_table.read(tmp_path / "soak.csv"), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


COLLECTION = """\
import subprocess, sys, time
from pathlib import Path
place = Path("data/.walk.partial-0")
place.mkdir(parents=True, exist_ok=True)
child = None
while True:
    if child is None or child.poll() is not None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"])
    with (place / "episodes.jsonl").open("a+") as table:
        table.seek(0)
        table.write('{"seed": %d}\\n' % (len(table.readlines()) + LOST))
    time.sleep(0.05)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("lost", [False, True])
def test_a_collection_is_killed_sampled_and_checked(
    lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    numbered = "int(time.time()) % 2" if lost else "0"
    monkeypatch.setattr(soak, "PARTS", {"collection": ["-c", COLLECTION.replace("LOST", numbered)]})
    monkeypatch.setattr(soak, "KILL_S", 0.3)
    table, figure = tmp_path / "soak.csv", tmp_path / "soak.png"
    words = [f"--minutes={0.04 if lost else 0.07}", "--every=0.2", "--parts=collection"]
    with pytest.raises(SystemExit) as ended:
        soak.main([*words, f"--results={table}", f"--figure={figure}"])
    if lost:
        assert "has lost an episode, or has one twice" in str(ended.value.code)
        return
    told = capsys.readouterr().out
    assert " episodes, none lost; " in told
    assert int(told.split(" kills, ")[1].split()[0]) > 1  # it was killed itself, and begun again
    assert "memory (MB)" in told
    assert len(soak_table.read(table)) >= 10
    assert figure.is_file()


def test_a_part_that_ends_by_itself_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "PARTS", {"training": ["-c", "raise SystemExit('no such option')"]})
    part = soak.Part("training", tmp_path / "part")
    part.process.wait()
    with pytest.raises(SystemExit, match=r"training ended with exit code 1:\nno such option"):
        part.sample()


def test_the_committed_table_says_what_the_documentation_says() -> None:
    table = soak_table.read(soak.ROOT / "data" / "results" / "soak.csv")
    for part in soak.PARTS:
        own = [row for row in table if row["part"] == part]
        assert float(own[-1]["seconds"]) >= 600
        assert not [name for name in soak_table.MEASURES if soak_table.verdict(own, name)[0]]
