"""Ranks of processes: variables of other programs, launchers, and consecutive runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities import rank_zero_only

from rate.errors import ConfigError
from tests.processes import PATIENCE
from tests.trainers.conftest import MakeConfig
from trainers.config import TrainingConfig
from trainers.launch import is_main_process, launched
from trainers.train import train

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
SRUN = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
STRAYS = [
    {},
    {"RANK": "1"},
    {"LOCAL_RANK": "1"},
    {"RANK": "gold", "LOCAL_RANK": ""},
    {"NODE_RANK": "3", "WORLD_SIZE": "8", "MASTER_PORT": "1", "MASTER_ADDR": "nowhere"},
    {"JSM_NAMESPACE_RANK": "2", "JSM_NAMESPACE_SIZE": "4"},
    {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMI_RANK": "2"},
    {"SLURM_NTASKS": "4"},
    {**SRUN, "SLURM_NTASKS": "4", "SLURM_PROCID": "3"},
]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes launcher variables, and the rank that Lightning read from them at its import."""
    known = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR")
    for name in (*known, *(name for name in os.environ if name.startswith("SLURM_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", 1)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.mark.parametrize("variables", STRAYS, ids=str)
@pytest.mark.parametrize("devices", [1, 2])
def test_variables_of_other_programs_set_no_rank(
    variables: dict[str, str], devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set_all(monkeypatch, variables)
    with launched(TrainingConfig(devices=devices)) as cluster:
        assert is_main_process()
        assert type(cluster) is LightningEnvironment
        assert not cluster.creates_processes_externally
        assert (cluster.local_rank(), cluster.node_rank()) == (0, 0)
        assert cluster.main_address == "127.0.0.1"
    assert dict(os.environ) == before
    assert rank_zero_only.rank == 1


def test_a_run_is_complete_with_any_of_these_variables(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes one process with a strategy for several."""
    plain = train(make_config(logging__name="plain")).folder
    set_all(monkeypatch, {**SRUN, "SLURM_NTASKS": "4", "RANK": "1", "LOCAL_RANK": "1"})
    result = train(make_config(logging__name="others", training__strategy="ddp"))
    assert result.rows
    assert (result.folder / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    assert (result.folder / "evaluation.json").is_file()


TWICE = """
import sys
from pathlib import Path
from trainers.config_files import load_config_file
from trainers.launch import is_main_process
from trainers.train import train

if __name__ == "__main__":
    first, second = (load_config_file(Path(path)) for path in sys.argv[1:])
    train(first)
    if is_main_process():
        train(second)
"""


@pytest.mark.slow
def test_a_run_after_one_of_two_processes(make_config: MakeConfig, tmp_path: Path) -> None:
    short = {"training__max_steps": 2, "evaluation__every_n_steps": 0}
    two = {"training__devices": 2, "training__strategy": "ddp"}
    configs = [make_config(logging__name="two", **short, **two)]
    configs.append(make_config(logging__name="one", **short))
    paths = [tmp_path / f"{config.label}.yaml" for config in configs]
    for path, config in zip(paths, configs, strict=True):
        path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    (tmp_path / "twice.py").write_text(TWICE, encoding="utf-8")
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, str(tmp_path / "twice.py"), *map(str, paths)],
        check=True,
        timeout=PATIENCE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    for config in configs:
        folder = Path(config.logging.output) / config.run_name
        assert (folder / "evaluation.json").is_file()


def test_torchrun_with_the_right_number_of_processes_is_the_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_all(monkeypatch, TORCHRUN)
    for settings in ({"devices": 2}, {"nodes": 2}):
        with launched(TrainingConfig(**settings)) as cluster:  # type: ignore[arg-type]
            assert isinstance(cluster, TorchElasticEnvironment)
            assert not is_main_process()
    monkeypatch.setenv("RANK", "0")
    with launched(TrainingConfig(devices=2)):
        assert is_main_process()
    with (
        pytest.raises(ConfigError, match=r"started 2 processes, but training\.devices x .* is 4"),
        launched(TrainingConfig(devices=4)),
    ):
        pass


def test_several_nodes_need_a_launcher() -> None:
    with (
        pytest.raises(ConfigError, match=r"nodes=2, but no launcher .*torchrun or srun"),
        launched(TrainingConfig(devices=2, nodes=2)),
    ):
        pass


def test_one_device_under_torchrun_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TORCHRUN)
    warned = pytest.warns(UserWarning, match=r"started 2 processes.*--training\.devices 2")
    with warned, launched(TrainingConfig()) as cluster:
        assert is_main_process()
        assert isinstance(cluster, LightningEnvironment)


def test_srun_with_the_right_number_of_tasks_is_the_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_all(monkeypatch, {**SRUN, "SLURM_NTASKS_PER_NODE": "2"})
    with launched(TrainingConfig(devices=2)) as cluster:
        assert isinstance(cluster, SLURMEnvironment)
        assert not cluster.auto_requeue  # Lightning's handler writes other checkpoints
        assert not is_main_process()
    monkeypatch.delenv("SLURM_STEP_ID")  # an allocation, without srun
    with launched(TrainingConfig(devices=2)) as cluster:
        assert type(cluster) is LightningEnvironment
        assert is_main_process()


def test_started_processes_know_their_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    with launched(TrainingConfig(devices=2)):
        child = {"RATE_LAUNCHED_BY": os.environ["RATE_LAUNCHED_BY"], "LOCAL_RANK": "1"}
    monkeypatch.setattr(os, "getppid", os.getpid)  # as in a child process
    set_all(monkeypatch, child)
    with launched(TrainingConfig(devices=2)) as cluster:
        assert not is_main_process()
        assert cluster.local_rank() == 1
        assert cluster.creates_processes_externally
