"""The output of a run: its description and its progress."""

from __future__ import annotations

import io
from functools import partial

import pytest
import torch
from rich.console import Console

from trainers import defaults, description
from trainers.callbacks import preparing
from trainers.cli import parse
from trainers.config_files import config_from_dict
from trainers.defaults import LONG
from trainers.description import describe_run, unused_gpu
from trainers.meter import Meter
from trainers.preset_files import load_preset, preset_names
from trainers.registry import ENVIRONMENTS
from trainers.train import train

CPU = torch.device("cpu")


def prepare(episodes: int, shown: bool, terminal: bool) -> tuple[str, list[tuple[str, int, int]]]:
    """Returns the output and the reports of a data collection."""
    text, reports = io.StringIO(), []
    console = Console(file=text, force_terminal=terminal, width=80)
    with preparing(shown, lambda *report: reports.append(report), partial(Meter, console)) as tell:
        for done in range(episodes + 1):
            tell("collecting", done, episodes)
        tell("packing", 1, None)
    return text.getvalue(), reports


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_every_episode_is_reported(shown: bool, terminal: bool) -> None:
    text, reports = prepare(25, shown, terminal)
    assert reports == [("collecting", done, 25) for done in range(26)]
    assert ("25/25" in text) == ("packing" in text) == shown


def test_an_empty_collection_shows_nothing() -> None:
    with preparing(True, None, partial(Meter, Console(file=(text := io.StringIO()), width=80))):
        pass
    assert not text.getvalue().strip()


def test_a_run_prints_its_description_and_folder(make_config, capsys) -> None:
    config = make_config(logging__progress=True)
    train(config)
    lines = capsys.readouterr().err.splitlines()
    known = {line.split(":")[0]: line for line in lines if ":" in line.split("  ")[0]}
    assert "parameters, precision 32-true" in known["model"]
    assert f"{config.data.num_episodes:,} episodes, " in known["data"]
    assert known["device"] == "device: cpu, 1 thread"
    steps = config.training.max_steps
    first, last = (
        next(i for i, line in enumerate(lines) if line.startswith(start))
        for start in ("training  0/", f"training  {steps}/{steps}  100%")
    )
    assert lines.index(known["device"]) < first < last
    assert any(line.startswith("scoring the last weights at ") for line in lines[last:])
    text = describe_run(config, None)
    assert f"{steps:,} updates on " in text
    assert text.endswith(f"The run is {config.logging.output}/{config.run_name}")


def test_an_unused_gpu_is_reported(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Card 9")
    assert unused_gpu(CPU).startswith(
        "note: a GPU is here (Card 9) and is not used; --training.acc"
    )
    assert unused_gpu(torch.device("cuda", 0)) == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(description, "has_gpu_driver", lambda: True)
    assert "PyTorch" in unused_gpu(CPU)
    monkeypatch.setattr(description, "has_gpu_driver", lambda: False)
    assert unused_gpu(CPU) == ""


def test_slow_presets_use_a_gpu_if_there_is_one() -> None:
    for environment in ["none", *ENVIRONMENTS]:
        for name in preset_names(environment):
            values = {"environment": environment, **load_preset(environment, name)}
            values.pop("tasks", None)  # overrides of single tasks
            config = config_from_dict(values)
            steps = config.training.batch_size * config.window * config.training.max_steps
            if steps >= LONG:
                assert config.training.accelerator == "auto", f"{environment}/{name}"


@pytest.mark.parametrize("driver", [True, False])
def test_a_missing_gpu_is_reported(monkeypatch, driver: bool) -> None:
    monkeypatch.setattr(defaults, "has_gpu_driver", lambda: driver)
    notes = parse("mujoco", ["--model_mode=DT"]).notes
    assert [("There is no GPU here" in note) for note in notes] == [True] * (not driver)
