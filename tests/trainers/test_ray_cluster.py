"""What is refused before a Ray cluster is used, and what its processes do; without Ray."""

from __future__ import annotations

import importlib.util
import pickle
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.vector.utils import CloudpickleWrapper

from rate.errors import ConfigError
from rate.workers.engine import performing_on
from rate.workers.tasks import Processes
from tests.datamodules.walk import SEEDS, run
from trainers import ray_cluster, ray_engine
from trainers.commands import collect, evaluate, study, train
from trainers.commands.scores import read_scores
from trainers.ray_cluster import Origin

ON_RAY = ("--on", "ray")


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is taken to be installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name == "ray" or found(name))
    monkeypatch.delenv(ray_cluster.ADDRESS, raising=False)


def test_without_ray_the_extra_is_named(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    error = error_of(collect.main, ["minigrid", *ON_RAY])
    assert "--on ray needs the package ray. Install it with: " in error
    assert "ray" in error.rpartition("Install it with: ")[2]


@pytest.mark.parametrize("main", [collect.main, evaluate.main, study.main])
def test_an_address_without_ray_is_refused(main: Any, error_of: Callable[..., str]) -> None:
    words = {collect.main: "minigrid", evaluate.main: "runs", study.main: "quickstart"}
    with_model = ["rate/pretrained/tmaze-rate"] if main is evaluate.main else [words[main]]
    assert "--ray-address goes with --on ray" in error_of(main, [*with_model, "--ray-address=auto"])


def test_training_on_ray_is_refused_by_name(error_of: Callable[..., str]) -> None:
    error = error_of(train.main, ["tmaze", *ON_RAY])
    assert "rate train does not run on Ray" in error
    assert "torchrun or SLURM" in error


def test_a_gpu_on_ray_is_refused(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "choose_device", lambda name: torch.device("cuda"))
    assert "leave out --device" in error_of(evaluate.main, ["runs", *ON_RAY, "--device=cuda"])


@pytest.mark.parametrize("address", ["10.0.0.1", "ray://10.0.0.1:10001", "head:port"])
@pytest.mark.usefixtures("with_ray")
def test_an_address_of_another_form_is_refused(address: str, error_of: Callable[..., str]) -> None:
    error = error_of(collect.main, ["minigrid", *ON_RAY, "--ray-address", address])
    assert f"--ray-address is {address}; it must be HOST:PORT" in error


@pytest.mark.usefixtures("with_ray")
def test_a_closed_port_is_refused(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv(ray_cluster.ADDRESS, address)
        assert f"No Ray cluster answers at {address} (" in error_of(
            collect.main, ["minigrid", *ON_RAY]
        )


@pytest.mark.usefixtures("with_ray")
def test_an_address_that_is_silent_is_refused_in_time(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_PROBE", "import time; time.sleep(600)")
    monkeypatch.setattr(ray_cluster, "_ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        error = error_of(collect.main, ["minigrid", *ON_RAY, f"--ray-address={address}"])
    assert f"No Ray cluster answers at {address} within 0.2 seconds" in error


@pytest.mark.usefixtures("with_ray")
def test_a_cluster_that_refuses_is_told_in_its_words(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_PROBE", "raise SystemExit('Version mismatch: 1 and 2')")
    error = error_of(collect.main, ["minigrid", *ON_RAY, "--ray-address=auto"])
    assert "The Ray cluster at auto refuses: Version mismatch: 1 and 2" in error


def test_a_node_with_other_code_is_refused_by_name() -> None:
    other = replace(Origin.here(), host="head", facts={**Origin.here().facts, "code": "0" * 12})
    wanted = rf"The node {socket.gethostname()} .* has other code \(\w{{12}}\) than head \(0{{12}}"
    with pytest.raises(ConfigError, match=wanted):
        other.enter()


def test_a_node_that_does_not_see_the_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not see .*file system that all nodes share"):
        Origin.here(tmp_path / "absent").enter()


def test_a_process_on_a_node_works_where_the_command_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    there = Origin.here(tmp_path)
    monkeypatch.chdir("/")
    replace(there, path=("/of/the/command",), trusted=("my_envs:make",)).enter()
    assert Path.cwd() == tmp_path
    assert sys.path[-1] == "/of/the/command"
    assert "my_envs:make" in ray_cluster.named_code()


def performed(make: Callable[[], Any], task: Any, job: str = "job") -> Any:
    """Returns what a task returns in a process of a cluster."""
    made = pickle.dumps(CloudpickleWrapper(make))
    return ray_engine._opened(ray_engine._perform(job, Origin.here(), made, 60.0, task))


def test_a_task_that_raises_gets_another_function(tmp_path: Path) -> None:
    def make() -> Callable[..., Any]:
        (tmp_path / f"made-{len(list(tmp_path.iterdir()))}").touch()

        def perform(task: str, beat: Callable[[], None]) -> str:
            beat()
            if task != "good":
                raise {"bug": RuntimeError, "user": ConfigError}[task]("the engine has a problem")
            return task

        return perform

    assert [performed(make, "good"), performed(make, "good")] == ["good", "good"]
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ray_engine._TaskError, match="RuntimeError: the engine has a problem"):
        performed(make, "bug")
    with pytest.raises(ConfigError, match="the engine has a problem"):
        performed(make, "user")
    assert len(list(tmp_path.iterdir())) == 2
    performed(make, "good", "another job")
    assert list(ray_engine._PERFORMS) == ["another job"]


class Recording(Processes):
    """An engine that performs in this process, and counts the tasks."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def results(
        self, make: Any, tasks: Any, num_workers: Any, timeout: float, attempts: int
    ) -> Generator[Any, None, None]:
        self.tasks += tasks
        return super().results(make, tasks, 0, timeout, attempts)


def test_a_collection_is_performed_by_the_engine(tmp_path: Path) -> None:
    alone, engine = run(tmp_path / "alone"), Recording()
    with performing_on(engine):
        elsewhere = run(tmp_path / "elsewhere", workers=2)
    assert engine.tasks == SEEDS
    for file in alone.iterdir():
        assert (elsewhere / file.name).read_bytes() == file.read_bytes()


def test_an_evaluation_by_the_engine_has_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["rate/pretrained/tmaze-rate", "--lengths", "9", "20", "--episodes", "3"]
    tables = [tmp_path / "alone.csv", tmp_path / "elsewhere.csv"]
    evaluate.main([*words, "--results", str(tables[0])])
    engine = Recording()
    with performing_on(engine):
        evaluate.main([*words, "--results", str(tables[1])])
    assert [task.settings.lengths for task in engine.tasks] == [[9], [20]]
    alone, elsewhere = (read_scores(table) for table in tables)
    assert [{**row, "seconds": 0} for row in alone] == [{**r, "seconds": 0} for r in elsewhere]
