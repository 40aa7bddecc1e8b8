"""Formats of users, by import path and by entry point, in every command that reads data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.dataset import Dataset
from datamodules.formats import find_format
from datamodules.options import Options
from rate.errors import ConfigError
from rate.weights import load_model
from trainers.commands.main import main as rate

OWN = "tests.own_format:FORMAT"
LENGTHS = (4, 6, 5, 4)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log file in the format of `tests.own_format`."""
    chance, path = np.random.default_rng(0), tmp_path / "log.jsonl"
    lines = [
        {
            "obs": chance.normal(size=(steps, 2)).tolist(),
            "act": chance.integers(2, size=steps).tolist(),
            "rew": [1.0] * steps,
        }
        for steps in LENGTHS
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def call(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["rate", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        sys.exit(rate())
    assert not ended.value.code


def test_a_format_is_read_by_its_import_path_only(tmp_path: Path, log: Path) -> None:
    data = Dataset.open(log, tmp_path, Options(format=OWN))
    assert data.store.lengths.tolist() == list(LENGTHS)
    assert data.store.manifest["provenance"]["format"] == "logs"
    assert find_format(log) is None
    with pytest.raises(ConfigError, match="Did you mean minari"):
        Dataset.open(log, tmp_path, Options(format="minary"))
    with pytest.raises(ConfigError, match=r"must be a datamodules\.formats\.Format"):
        Dataset.open(log, tmp_path, Options(format="json:loads"))


def test_a_format_of_the_project_can_be_chosen(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "data",
        observations=np.ones((4, 2)),
        actions=[0, 1, 0, 1],
        rewards=[1] * 4,
        dones=[0, 0, 0, 1],
    )
    renamed = (tmp_path / "data.npz").rename(tmp_path / "data.bin")
    assert Dataset.open(renamed, tmp_path, Options(format="npz")).store.lengths.tolist() == [4]


def test_a_format_registered_by_a_package_is_recognised(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "packages" / "their_logs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-logs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rate.formats]\ntheirs = {OWN}\n")
    monkeypatch.syspath_prepend(info.parent)
    found = find_format(log)
    assert found is not None
    assert found.name == "logs"
    assert Dataset.open(log, tmp_path).store.lengths.tolist() == list(LENGTHS)


def test_every_command_accepts_the_format(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "validate", log, "--format", OWN)
    assert "4 valid episodes" in capsys.readouterr().out
    call(monkeypatch, "convert", log, tmp_path / "store", "--format", OWN)
    small = ["--training.max_steps=2", "--model.d_model=8", "--model.num_heads=1"]
    call(monkeypatch, "train", "--data", log, "--format", OWN, "--logging.progress=false", *small)
    (run,) = (tmp_path / "runs").iterdir()
    assert load_model(run).spec.action_space.n == 2


def test_a_configuration_file_runs_no_reader_that_the_user_did_not_name(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"environment": "none", "data": {"store": str(log)}}
    named["data"]["reading"] = {"format": "nobody_named_this:FORMAT"}  # type: ignore[index]
    (tmp_path / "theirs.yaml").write_text(json.dumps(named))
    monkeypatch.setattr(sys, "argv", ["rate", "train", "--config", "theirs.yaml"])
    with pytest.raises(SystemExit) as ended:
        rate()
    assert ended.value.code not in (0, None)
    assert "nobody_named_this" not in sys.modules
