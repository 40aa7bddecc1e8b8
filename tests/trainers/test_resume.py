"""Resumed runs equal uninterrupted ones bit for bit; evaluation does not change training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rate import renamed
from rate.errors import ConfigError
from tests.processes import PATIENCE
from trainers.callbacks.checkpoint import SafeCheckpointIO
from trainers.config import RunConfig
from trainers.errors import CheckpointError
from trainers.train import train


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def same_run(first: Path, second: Path) -> None:
    """Asserts that runs have the same metrics byte for byte and the same weights bit for bit."""
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()
    mine, others = weights(first), weights(second)
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in mine)


class StopAt:
    """A report that raises an error at an optimiser step, to simulate a crash."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, phase: str, step: int, total: int) -> None:
        if phase == "training" and step >= self.step:
            raise RuntimeError("crash")


@pytest.mark.parametrize("curriculum", [False, True])
@pytest.mark.parametrize("bptt_segments", [None, 0])
def test_a_resumed_run_equals_an_uninterrupted_one(make_config, curriculum, bptt_segments) -> None:
    settings = {
        "curriculum__enabled": curriculum,
        "curriculum__max_steps": 2,
        "training__bptt_segments": bptt_segments,
    }
    whole = train(make_config(logging__name="whole", **settings)).folder
    config = make_config(logging__name="parts", **settings)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    train(config, resume=folder)
    same_run(whole, folder)


def test_a_training_state_with_former_names_of_weights_is_resumed(make_config) -> None:
    settings = {"model__valve": "cross_attention", "model__num_memory_tokens": 3}
    whole = train(make_config(logging__name="whole", **settings)).folder
    config = make_config(logging__name="parts", **settings)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = SafeCheckpointIO().load_checkpoint(path)
    former = {}
    for name, weight in checkpoint["state_dict"].items():
        for before, after in renamed.WEIGHTS.items():
            name = name.replace(after, before)
        former[name] = weight
    assert former.keys() != checkpoint["state_dict"].keys()
    SafeCheckpointIO().save_checkpoint({**checkpoint, "state_dict": former}, path)
    train(config, resume=folder)
    same_run(whole, folder)


def test_runs_with_one_seed_are_equal_and_another_seed_differs(make_config) -> None:
    first = train(make_config(logging__name="first")).folder
    same_run(first, train(make_config(logging__name="second")).folder)
    other = train(make_config(logging__name="first", training__seed=2)).folder
    assert (first / "metrics.csv").read_bytes() != (other / "metrics.csv").read_bytes()


def test_evaluation_does_not_change_training(make_config) -> None:
    often = train(make_config(logging__name="often", evaluation__every_n_steps=1)).folder
    never = train(make_config(logging__name="never", evaluation__every_n_steps=0)).folder
    mine, others = weights(often), weights(never)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(make_config) -> None:
    whole = train(make_config(logging__name="whole")).folder
    config = make_config(logging__name="parts")
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(7))
    folder = Path(config.logging.output) / config.run_name
    checkpoint = folder / "checkpoints" / "last.ckpt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged.*the checkpoint before"):
        train(config, resume=folder)
    same_run(whole, folder)


@pytest.mark.parametrize("moved", ["between the renames", "before the digest"])
def test_a_crash_while_saving_leaves_a_checkpoint(make_config, moved) -> None:
    """Covers the two moments of a save at which a file and its digest disagree."""
    config = make_config()
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(7))
    folder = Path(config.logging.output) / config.run_name
    checkpoints = folder / "checkpoints"
    if moved == "between the renames":
        (checkpoints / "last.ckpt").replace(checkpoints / "previous.ckpt")
    else:
        (checkpoints / "last.ckpt").replace(checkpoints / "previous.ckpt")
        (checkpoints / "last.ckpt.sha256").replace(checkpoints / "previous.ckpt.sha256")
        (checkpoints / "last.ckpt").write_bytes(b"a new checkpoint, whose digest is not there yet")
    with pytest.warns(UserWarning, match="the checkpoint before"):
        assert train(config, resume=folder).steps == config.training.max_steps


def test_a_checkpoint_with_code_in_it_is_refused(make_config, tmp_path) -> None:
    config = make_config()
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(4))
    folder = Path(config.logging.output) / config.run_name
    script = (
        "import hashlib, pathlib, sys, torch\n"
        "class Evil:\n"
        "    def __reduce__(self):\n"
        f"        return (open, ({str(tmp_path / 'pwned')!r}, 'w'))\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "torch.save({'state_dict': Evil()}, path)\n"
        "digest = hashlib.sha256(path.read_bytes()).hexdigest()\n"
        "path.with_name('last.ckpt.sha256').write_text(digest + '  last.ckpt')\n"
    )
    checkpoint = folder / "checkpoints" / "last.ckpt"
    subprocess.run([sys.executable, "-c", script, str(checkpoint)], check=True, timeout=PATIENCE)
    with pytest.raises(CheckpointError, match="Nothing in it was run"):
        train(config, resume=folder)
    assert not (tmp_path / "pwned").exists()


def test_a_resume_with_other_settings_is_refused(make_config) -> None:
    folder = train(make_config()).folder
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate is 0\.5"):
        train(make_config(optimizer__learning_rate=0.5), resume=folder)
    with pytest.raises(ConfigError, match="can be made longer, not shorter"):
        train(make_config(training__max_steps=2), resume=folder)


def test_a_finished_run_can_be_extended(make_config) -> None:
    folder = train(make_config()).folder
    result = train(make_config(training__max_steps=12), resume=folder)
    assert result.steps == 12
    assert load(folder).training.max_steps == 12


def load(folder: Path) -> RunConfig:
    from trainers.config_files import load_config_file

    return load_config_file(folder / "config.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_can_be_resumed(make_config, tmp_path, number) -> None:
    """Kills a real process in the middle of training, while it saves at every step.

    Its environment has variables of an unrelated launcher, which Lightning reads when imported.
    """
    config = make_config(
        training__max_steps=150,
        training__checkpoint_every_n_steps=1,
        training__log_every_n_steps=1,
        evaluation__every_n_steps=0,
    )
    settings = tmp_path / "config.yaml"
    settings.write_text(yaml.safe_dump(config.to_dict()))
    command = [sys.executable, "scripts/train_tmaze.py", "--config", str(settings)]
    folder = Path(config.logging.output) / config.run_name
    variables = {**os.environ, "RANK": "gold", "LOCAL_RANK": "1", "SLURM_NTASKS": "4"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables)
    deadline = time.monotonic() + PATIENCE
    while not (folder / "checkpoints" / "previous.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert f"--resume {folder}" in errors
    assert not (folder / "evaluation.json").exists()
    result = train(config, resume=folder)
    assert result.steps == 150
    steps = [line.split(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(1, 151)]
