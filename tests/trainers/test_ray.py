"""Work on a Ray cluster of this machine, whose processes and nodes are killed.

python -m pytest -m long tests/trainers/test_ray.py      # with the extra `ray`
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from datamodules.joining import join_stores
from rate.errors import ConfigError
from rate.workers.engine import engine_elsewhere
from rate.workers.pool import available_cores
from rate.workers.tasks import TaskFailure, run_tasks
from tests.datamodules.walk import run
from tests.processes import processes, wait_until
from trainers.commands import collect, evaluate, study
from trainers.commands.engine_options import engine_of
from trainers.commands.scores import read_scores

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "rate/pretrained/tmaze-rate")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with a core each, whose processes import this code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture
def on_ray(cluster: Any) -> list[str]:
    return ["--on", "ray", "--ray-address", cluster.address]


@contextmanager
def using(cluster: Any, **arguments: Any) -> Iterator[None]:
    options = argparse.Namespace(on="ray", ray_address=cluster.address)
    with engine_of(options, Console(stderr=True), **arguments):
        yield


@contextmanager
def another_node(cluster: Any) -> Iterator[Callable[[], None]]:
    """Adds a node; yields a function that kills it."""
    node = cluster.add_node(num_cpus=1)
    killed: list[Any] = []

    def kill() -> None:
        if not killed:
            killed.append(node)
            cluster.remove_node(node, allow_graceful=False)

    yield kill
    kill()


def same_scores(first: Path, second: Path) -> None:
    """Asserts that tables have the same rows but for the time that they took."""
    rows = [[{**row, "seconds": 0} for row in read_scores(path)] for path in (first, second)]
    assert rows[0] == rows[1]
    assert rows[0]


def same_files(first: Path, second: Path) -> None:
    assert {file.name for file in first.iterdir()} == {file.name for file in second.iterdir()}
    for file in first.iterdir():
        assert (second / file.name).read_bytes() == file.read_bytes()


def store_in(root: Path) -> Path:
    (store,) = [path for path in root.iterdir() if path.is_dir()]
    return store


@pytest.mark.parametrize("how", ["kill", "bug"])
def test_a_collection_whose_processes_fail_is_the_same(how: str, cluster: Any, tmp_path: Path):
    alone = run(tmp_path / "alone")
    with using(cluster):
        there = run(tmp_path / "there", None, log=tmp_path / "log", failures={3: 2, 12: 1}, how=how)
    same_files(alone, there)
    assert len((tmp_path / "log" / "3").read_text().split()) == 3


def test_a_process_that_hangs_is_replaced(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.ray_engine.STARTING_S", 5.0)  # of this process alone
    alone = run(tmp_path / "alone")
    log = {"log": tmp_path / "log", "failures": {3: 1}, "how": "hang"}
    with using(cluster):
        there = run(tmp_path / "there", None, timeout=5.0, **log)
    same_files(alone, there)


def test_an_episode_that_always_kills_its_process_is_told(cluster, tmp_path):
    with using(cluster), pytest.raises(ValueError, match="the episode of seed 3 failed 3 times"):
        run(tmp_path / "there", None, log=tmp_path / "log", failures={3: 9})
    with using(cluster), pytest.raises(ConfigError, match="the engine has a problem"):
        run(tmp_path / "user", None, log=tmp_path / "other", failures={3: 9}, how="user")


def nap(seconds: float, task: int, beat: Any) -> tuple[int, int]:
    time.sleep(seconds)
    return task, os.getpid()


def test_a_killed_node_costs_no_task_and_a_new_one_is_used(cluster, tmp_path):
    tasks = list(range(60))
    with using(cluster), another_node(cluster) as kill:
        engine = engine_elsewhere()
        wait_until(lambda: engine.capacity == 3)
        results = []
        with closing(run_tasks(partial(partial, nap, 0.5), tasks, None)) as found:
            for result in found:
                results.append(result)
                if len(results) == 8:
                    kill()
    assert [task for task, _ in results] == tasks
    assert len({pid for _, pid in results}) >= 3


def test_a_collection_with_a_killed_node_is_the_same_and_is_joined(cluster, on_ray, tmp_path):
    words = ["minigrid", "--data.num_episodes=40", "--data.max_length=61", "--data.seed=1"]
    whole, parts = tmp_path / "alone", tmp_path / "parts"
    collect.main([*words, f"--data.root={whole}"])
    with another_node(cluster) as kill:
        begun = partial(wait_until, lambda: list((parts / "a").glob(".*.partial-*")))
        killing = threading.Thread(target=lambda: (begun(), kill()))
        killing.start()
        collect.main([*words, f"--data.root={parts / 'a'}", *on_ray])
        killing.join()
    alone, there = store_in(whole), store_in(parts / "a")
    same_files(alone, there)
    there.rename(parts / "first")
    alone.rename(parts / "second")
    assert join_stores(parts).num_episodes == 80


def test_an_evaluation_has_the_same_table(on_ray, tmp_path, capsys):
    words = [MODEL, "--lengths", "9", "60", "--episodes", "20"]
    evaluate.main([*words, "--results", str(tmp_path / "alone.csv")])
    evaluate.main([*words, "--results", str(tmp_path / "there.csv"), *on_ray])
    same_scores(tmp_path / "alone.csv", tmp_path / "there.csv")
    assert "Ray at " in capsys.readouterr().out


STUDY = (
    "environment: tmaze\nseeds: [1, 2]\nbaselines: [random]\nruns: {memory: --model_mode RATE}\n"
)
SHORT = (
    *("--model.d_model=16", "--model.num_layers=1", "--model.context_length=3"),
    *("--training.segments=3", "--training.batch_size=2", "--data.num_episodes=20"),
    *("--curriculum.enabled=false", "--evaluation.every_n_steps=0", "--evaluation.lengths=[9]"),
    *("--evaluation.episodes=2", "--training.checkpoint_every_n_steps=20"),
    *("--logging.tensorboard=false", "--training.max_steps=300"),
)


def test_a_study_with_a_killed_process_has_the_same_table(on_ray, tmp_path, capsys):
    file = tmp_path / "two.yaml"
    file.write_text(STUDY, encoding="utf-8")
    words = [str(file), *SHORT, f"--data.root={tmp_path}"]
    study.main([*words, f"--output={tmp_path / 'alone'}", "--jobs=2"])
    output, killed = tmp_path / "there", list[int]()

    def kill() -> None:
        wait_until(lambda: list(output.glob("tmaze-memory-1/checkpoints/last.ckpt")))
        victims = [int(s["Pid"]) for s in processes() if s["Name"].startswith("ray::_serve")]
        killed.extend(victims[:1])
        os.kill(victims[0], signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    study.main([*words, f"--output={output}", *on_ray])
    killing.join()
    assert killed
    same_scores(tmp_path / "alone" / "two.csv", output / "two.csv")
    assert not [path for path in output.iterdir() if path.name.startswith(".nodes")]


def test_a_node_with_other_code_is_refused(cluster, on_ray, error_of, monkeypatch):
    monkeypatch.setattr("trainers.versions.code_digest", lambda: "0" * 12)
    error = error_of(evaluate.main, [MODEL, "--lengths=9", "--episodes=2", *on_ray])
    assert "of the Ray cluster has other code (" in error


class Doubling:
    lost = ()

    def __init__(self, beat: Any) -> None:
        self.beat = beat

    def make(self, number: int) -> int:
        self.beat("begun")
        return 2 * number

    def close(self) -> None:
        pass


def test_a_call_that_wants_more_cores_than_a_node_has_is_performed(cluster):
    with using(cluster):
        call = engine_elsewhere().call(Doubling, 21, 64)
        while (answer := call.take()) is None:
            assert call.note in (None, "begun")
    assert answer == (42,)


def test_without_an_address_a_cluster_is_started_and_ended(tmp_path):
    words = ["minigrid", "--data.num_episodes=20", "--data.max_length=61"]
    collect.main([*words, f"--data.root={tmp_path / 'alone'}"])
    command = [sys.executable, "-m", "trainers.commands.main", "collect", *words, "--on=ray"]
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [*command, f"--data.root={tmp_path / 'there'}"],
        env={**variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.match(r"Ray at (\S+): 1 node, (\d+) cores\n", done.stdout)
    assert found is not None
    assert int(found[2]) == available_cores()
    same_files(store_in(tmp_path / "alone"), store_in(tmp_path / "there"))


def test_a_failure_is_yielded_where_some_are_allowed(cluster):
    def fail(task: int, beat: Any) -> int:
        if task == 1:
            raise RuntimeError("no such task")
        return task

    with using(cluster):
        first, second, third = run_tasks(lambda: fail, [0, 1, 2], None, most_failures=1)
    assert (first, third) == (0, 2)
    assert isinstance(second, TaskFailure)
    assert "no such task" in second.reason
