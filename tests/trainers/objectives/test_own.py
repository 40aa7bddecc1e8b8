"""An objective of a user: its own heads, target networks, losses, metrics and settings."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rate.envs.tmaze import TMAZE_SPEC
from rate.errors import ConfigError
from rate.weights import load_model
from tests.processes import PATIENCE
from tests.trainers.test_graphs import EXACT, OFF, repeat
from tests.trainers.test_resume import StopAt, same_run
from trainers import graphs
from trainers.cli import parse
from trainers.config_files import config_from_dict, load_config_file
from trainers.sequence import SequenceTrainer
from trainers.train import train

MODULE = "tests.trainers.objectives.value_learning"
OWN = {"training__objective": f"{MODULE}:ValueLearning", "training__log_every_n_steps": 1}


def state(folder: Path) -> dict[str, Any]:
    found = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {k.removeprefix("objective."): v for k, v in found.items() if k.startswith("objective.")}


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("bptt_segments", [None, 0])
def test_its_modules_are_trained_and_kept_out_of_saved_models(make_config, bptt_segments) -> None:
    config = make_config(**OWN, training__bptt_segments=bptt_segments)
    made = SequenceTrainer(config, TMAZE_SPEC)
    before = {name: tensor.clone() for name, tensor in made.objective.state_dict().items()}
    result = train(config)
    folder, after = result.folder, state(result.folder)
    assert before.keys() == after.keys()
    assert torch.equal(before["value.weight"], before["target.weight"])
    assert not torch.equal(before["value.weight"], after["value.weight"])
    assert not torch.equal(after["target.weight"], after["value.weight"])
    assert not torch.equal(after["target.weight"], before["target.weight"])
    assert after["moves"] == result.steps  # called once per optimiser step
    for name in ("loss", "action_loss", "value_loss", "td_error", "grad_norm"):
        assert len(column(folder, name)) == result.steps
    parts = zip(column(folder, "action_loss"), column(folder, "value_loss"), strict=True)
    assert [sum(both) for both in parts] == pytest.approx(column(folder, "loss"), rel=1e-6)
    left = load_model(folder).model.state_dict()
    assert not any("target" in name or "objective" in name for name in left)


def test_a_resumed_run_equals_an_uninterrupted_one(make_config) -> None:
    whole = train(make_config(logging__name="whole", **OWN)).folder
    config = make_config(logging__name="parts", **OWN)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    train(config, resume=folder)
    same_run(whole, folder)
    mine, others = state(whole), state(folder)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_steps_of_cuda_graphs_update_it(make_config, monkeypatch) -> None:
    plain = train(make_config(logging__name="plain", **OWN, **OFF, **EXACT)).folder
    monkeypatch.setattr(graphs, "record", repeat)
    monkeypatch.setattr(SequenceTrainer, "_on_gpu", True)
    folder = train(make_config(logging__name="graphs", **OWN, **OFF, **EXACT)).folder
    same_run(plain, folder)
    mine, others = state(plain), state(folder)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


TOGETHER = """
import sys
from pathlib import Path
from trainers.config_files import load_config_file
from trainers.train import train

if __name__ == "__main__":
    train(load_config_file(Path(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_train_it_as_one(make_config, tmp_path) -> None:
    exact = {**OWN, "model__dropout": 0.0, "model__memory_noise": 0.0, "training__max_steps": 4}
    two = {"training__devices": 2, "training__strategy": "ddp"}
    alone = train(make_config(logging__name="alone", **exact)).folder
    config = make_config(logging__name="together", **exact, **two)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (tmp_path / "together.py").write_text(TOGETHER)
    root = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, str(tmp_path / "together.py"), str(tmp_path / "config.yaml")],
        check=True,
        timeout=PATIENCE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    together = Path(config.logging.output) / config.run_name
    for name in ("loss", "value_loss", "td_error", "grad_norm"):
        assert column(together, name) == pytest.approx(column(alone, name), rel=1e-4, abs=1e-6)
    mine, others = state(alone), state(together)
    for name in mine:
        torch.testing.assert_close(mine[name], others[name])


def test_its_settings_are_options_of_the_command_line(tmp_path) -> None:
    command = ["--training.objective", OWN["training__objective"], "--loss.tau", "0.125"]
    config = parse("tmaze", [*command, "--curriculum.enabled=false"]).config
    assert vars(config.loss) == {"discount": 0.9, "weight": 0.5, "tau": 0.125}
    assert config.run_name == "tmaze-rate-valuelearning-no-curriculum-1"
    assert config_from_dict(config.to_dict()) == config
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.to_dict()))
    assert load_config_file(file) == config
    with pytest.raises(ConfigError, match=r"loss\.weight is 'high'; it must be a number"):
        parse("tmaze", [*command, "--loss.weight", "high"])
    with pytest.raises(ConfigError, match=r"loss\.weight is -1"):
        parse("tmaze", [*command, "--loss.weight", "-1"])
    with pytest.raises(ConfigError, match=r"no option --loss\.auxiliary_state_weight"):
        parse("tmaze", [*command, "--loss.auxiliary_state_weight", "1"])


@pytest.mark.parametrize("setting", ["training.objective", "model.backbone"])
def test_a_file_does_not_import_code(tmp_path, setting) -> None:
    """A class that a file names is imported after it was named on the command line."""
    path = f"tests.trainers.objectives.unheard_of:{setting[-4:]}"
    section, _, name = setting.partition(".")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"name": "rate", section: {name: path}}))
    for options in ([], ["--training.max_steps", "3"]):
        with pytest.raises(ConfigError, match=rf"have not named.*: --{setting} {path}"):
            parse("tmaze", ["--config", str(file), *options])
    with pytest.raises(ConfigError, match=r"there is no module 'tests\.trainers"):
        parse("tmaze", ["--config", str(file), f"--{setting}", path])


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("behavior_cloning", r"training\.objective=behavior_cloning.*mean behaviour_cloning\?"),
        (f"{MODULE}:NoObjective", r"NoObjective.*it must be a subclass of .*Objective"),
        (f"{MODULE}:ValueLerning", r"no attribute 'ValueLerning'\. Did you mean ValueLearning\?"),
        ("nobody_has_this:Loss", r"there is no module 'nobody_has_this'"),
    ],
)
def test_a_class_that_is_no_objective_is_refused(objective: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse("tmaze", ["--training.objective", objective])


def test_names_of_other_columns_are_refused(make_config) -> None:
    with pytest.raises(ConfigError, match="has a metric 'grad_norm', which is the name of another"):
        train(make_config(training__objective=f"{MODULE}:OtherNames"))


def test_a_curriculum_needs_the_metric_of_its_stages(make_config) -> None:
    with pytest.raises(ConfigError, match=r"needs the metric 'last_step_accuracy'"):
        train(make_config(**OWN, curriculum__enabled=True))
