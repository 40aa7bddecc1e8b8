"""Runs of several processes, on one node or two, as a launcher starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import PATIENCE
from tests.trainers.conftest import MakeConfig
from tests.trainers.test_training import column
from trainers.config import RunConfig
from trainers.train import train

ROOT = Path(__file__).parents[2]
# Without noise, which each process draws for its own rows, and with a rate that does not depend on
# the number of steps.
PLAIN: dict[str, Any] = {
    "model__dropout": 0.0,
    "model__memory_noise": 0.0,
    "optimizer__schedule": "constant",
    "training__log_every_n_steps": 1,
    "training__checkpoint_every_n_steps": 3,
    "data__held_out": 0.2,
}
SMALL = [
    *("rate_cache", "armt_cache", "universal", "adaptive_span", "rezero_gtrxl", "dt"),
    *("lstm_of_two_layers", "elmur", "mamba2", "own"),
]


def start(folder: Path, *runs: dict[str, Any]) -> list[list[int]]:
    """Makes runs one after another; returns the exit codes of the processes of each."""
    (folder / "plan.json").write_text(json.dumps(runs))
    script = "tests.trainers.processes_of_a_run"
    done = subprocess.run(
        [sys.executable, "-m", script, str(folder / "plan.json")],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def plan(config: RunConfig, folder: Path, **settings: Any) -> dict[str, Any]:
    """Returns a run for `start`."""
    training = config.training
    name = f"{config.label}-{training.devices}-{training.nodes}-{training.max_steps}"
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    given = {"config": str(path), "log": str(folder / name), "limit_s": PATIENCE, **settings}
    return {"devices": training.devices, "nodes": training.nodes, **given}


def output(run: dict[str, Any], rank: int) -> str:
    return Path(f"{run['log']}-{rank}").read_text()


@pytest.mark.slow
def test_the_kind_and_number_of_processes_change_no_number(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """FSDP2 on two processes, DDP on two nodes of two, one of which dies, then one process."""
    one = train(make_config(**PLAIN, logging__name="one", training__max_steps=9))

    def part(steps: int, devices: int, nodes: int, strategy: str) -> RunConfig:
        return make_config(
            **PLAIN,
            logging__name="many",
            training__max_steps=steps,
            training__devices=devices,
            training__nodes=nodes,
            training__strategy=strategy,
        )

    many = one.folder.with_name(one.folder.name.replace("one", "many"))
    parts = [part(3, 2, 1, "fsdp2"), part(6, 2, 2, "ddp"), part(7, 2, 1, "fsdp2")]
    runs = [plan(config, tmp_path, resume="auto") for config in parts]
    runs[1] |= {"odd": "killed", "limit_s": 60.0}
    first, second, third = start(tmp_path, *runs)
    assert first == third == [0, 0]
    assert second[1] == -9
    assert all(code not in (0, -9) for code in (*second[:1], *second[2:]))  # in time, by themselves
    for run in runs:
        assert not Path(f"{run['log']}-writes").exists()  # of processes other than the first
        assert "Traceback" not in "".join(output(run, 0))
    result = train(part(9, 1, 1, "auto"), "auto")
    assert result.folder == many
    for name in ("loss", "grad_norm", "accuracy"):
        found = column(many, name)
        assert len(found) == 9
        assert found == pytest.approx(column(one.folder, name), rel=1e-4)
    ends = [column(folder, "held_out/loss")[-1] for folder in (many, one.folder)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)
    keys = ("which", "length", "episodes", "first_seed", "return", "success")
    scores = [[[row[key] for key in keys] for row in r.rows] for r in (one, result)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_processes_that_differ_end_with_a_message_on_each(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    two = {"training__devices": 2, "training__strategy": "ddp", "training__max_steps": 2}
    config = make_config(**two)
    others = {
        "code": config,
        "settings": make_config(**two, optimizer__learning_rate=0.5),
        "data": make_config(**two, data__store=str(tmp_path / "nothing")),
    }
    runs = []
    for odd, other in others.items():
        path = tmp_path / f"{odd}.yaml"
        path.write_text(yaml.safe_dump(other.to_dict()), encoding="utf-8")
        kind = "code" if odd == "code" else "settings"
        given = {"odd": kind, "other": str(path), "log": str(tmp_path / odd)}
        runs.append(plan(config, tmp_path, **given))
    assert start(tmp_path, *runs) == [[2, 2]] * 3
    for run, odd in zip(runs, others, strict=True):
        texts = [output(run, rank) for rank in range(2)]
        if odd == "data":
            assert all(str(tmp_path / "nothing") in text for text in texts)
        else:
            assert all(f"has other {odd} (" in text for text in texts)
        assert "Process 1 of 2, on " in texts[0]
        assert "Traceback" not in "".join(texts)
    assert not (Path(config.logging.output) / config.run_name).exists()


def torchrun(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.long
def test_a_sharded_model_has_the_gradients_of_a_whole_one() -> None:
    words = ("--standalone", "--nproc-per-node=2", "-m", "tests.trainers.sharding_checks", *SMALL)
    process = torchrun(*words)
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, text
    assert text.count("as a whole one") == 2 * len(SMALL)
    assert "differs" not in text


@pytest.mark.long
def test_two_nodes_of_two_processes_by_torchrun(make_config: MakeConfig, tmp_path: Path) -> None:
    from tests.trainers.processes_of_a_run import free_port

    one = train(make_config(**PLAIN, logging__name="one"))
    config = make_config(
        **PLAIN,
        logging__name="many",
        training__devices=2,
        training__nodes=2,
        training__strategy="ddp",
    )
    path = tmp_path / "many.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    common = ("--nnodes=2", "--nproc-per-node=2", "--master-addr=127.0.0.1")
    command = (f"--master-port={free_port()}", "-m", "trainers.commands.main", "train")
    processes = [
        torchrun(*common, f"--node-rank={node}", *command, "--config", str(path))
        for node in range(2)
    ]
    for process in processes:
        text, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, text
    many = one.folder.with_name(one.folder.name.replace("one", "many"))
    assert column(many, "loss") == pytest.approx(column(one.folder, "loss"), rel=1e-4)
