"""A study whose processes are killed: none is left behind, and a dead run costs one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, processes
from trainers.run_lock import is_written

ROOT = Path(__file__).parents[2]
STUDY = "environment: tmaze\nseeds: [1, 2]\nruns: {memory: --model_mode RATE}\n"

SHORT = (
    *("--model.d_model=16", "--model.num_layers=1", "--model.context_length=3"),
    *("--training.segments=3", "--training.batch_size=2", "--data.num_episodes=20"),
    *("--curriculum.enabled=false", "--evaluation.every_n_steps=0", "--evaluation.lengths=[9]"),
    *("--evaluation.episodes=2", "--training.checkpoint_every_n_steps=100"),
    "--logging.tensorboard=false",
)
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def runs_of(study: int) -> list[int]:
    """Returns the processes that a study has started."""
    return [int(s["Pid"]) for s in processes() if s["PPid"] == str(study) and s["State"] != "Z"]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a study of two runs side by side, and waits until both train."""
    (tmp_path / "two.yaml").write_text(STUDY, encoding="utf-8")
    command = [sys.executable, "scripts/study.py", str(tmp_path / "two.yaml"), "--jobs=2"]
    started: list[subprocess.Popen[str]] = []

    def start_study(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, f"--output={tmp_path}", f"--data.root={tmp_path}", *SHORT, *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        folders = [tmp_path / f"tmaze-memory-{seed}" for seed in (1, 2)]
        wait_for(lambda: all((each / "metrics.csv").is_file() for each in folders))
        return process

    yield start_study
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_study_leaves_no_process(start, tmp_path: Path) -> None:
    study = start("--training.max_steps=1000000")
    runs = runs_of(study.pid)
    assert len(runs) == 2
    study.kill()
    study.wait()
    wait_for(lambda: not any(Path(f"/proc/{run}/stat").exists() for run in runs))
    assert not any(is_written(folder) for folder in tmp_path.glob("tmaze-*"))


def test_a_run_that_is_killed_costs_one_run(start, tmp_path: Path) -> None:
    study = start("--training.max_steps=300")
    victim, other = runs_of(study.pid)
    os.kill(victim, signal.SIGKILL)
    _, error = study.communicate(timeout=PATIENCE)
    assert other
    assert study.returncode == 1
    assert "1 of 2 runs did not finish. The same command continues with them." in error
    assert "Its process ended: it was killed by SIGKILL (by the system, if memory ran" in error
    assert len(list(tmp_path.glob("*/evaluation.json"))) == 1
