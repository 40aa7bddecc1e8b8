"""Runs of learning rules that are killed go on from a copy of their folder as if nothing was."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.test_crash_points import run_until
from tests.trainers.conftest import MakeConfig
from tests.trainers.objectives.test_own import state
from tests.trainers.objectives.test_rule_runs import VALUES
from tests.trainers.sources.test_online_runs import ONLINE, RULES
from tests.trainers.test_resume import same_run
from trainers.runs import run_folder
from trainers.train import train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

STEPS = {"training__max_steps": 4, "training__checkpoint_every_n_steps": 1}
RUNS: dict[str, dict[str, Any]] = {
    "iql": {**VALUES, **STEPS},
    "r2d2": {**ONLINE, **RULES["r2d2"], **STEPS},
    "a2c": {**ONLINE, **STEPS},
}


@pytest.mark.parametrize("rule", RUNS)
def test_a_killed_run_of_a_rule_goes_on_from_a_copy_of_its_folder(
    make_config: MakeConfig, tmp_path: Path, rule: str
) -> None:
    """The process is killed between two of its checkpoints."""
    settings = {**RUNS[rule], "training__objective": rule}
    whole = make_config(logging__name="whole", **settings)
    assert run_until(whole, 0, tmp_path / "seen") == 0
    operations = int((tmp_path / "seen").read_text())
    config = make_config(logging__name="killed", **settings)
    assert run_until(config, operations // 2, tmp_path / "seen") == signal.SIGKILL
    copy = tmp_path / "elsewhere" / run_folder(config).name
    shutil.copytree(run_folder(config), copy)
    shutil.rmtree(run_folder(config))
    saved = torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < saved["global_step"] < 4
    changes = {**settings, "logging__output": str(copy.parent)}
    resumed = train(make_config(logging__name="killed", **changes), resume=copy).folder
    assert resumed == copy
    same_run(run_folder(whole), copy)
    mine, others = state(run_folder(whole)), state(copy)
    assert all(torch.equal(mine[name], others[name]) for name in mine)
