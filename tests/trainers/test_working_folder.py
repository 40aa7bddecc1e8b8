"""Runs that are resumed from another working directory than they were started in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.trainers.conftest import MakeConfig
from trainers.cli import parse
from trainers.train import train


def test_a_run_resumes_with_its_data_from_any_working_directory(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(home)
    config = make_config(data__root="data", logging__output="runs", training__max_steps=3)
    run = (home / train(config).folder).resolve()
    assert parse("tmaze", ["--resume", "runs/" + run.name]).config.data.root == "data"
    monkeypatch.chdir(elsewhere)
    command = parse("tmaze", ["--resume", str(run), "--training.max_steps=5"])
    assert command.notes == [f"the data are those in {home / 'data'}; the run was begun in {home}."]
    assert train(command.config, resume=command.resume).steps == 5
    assert list(elsewhere.iterdir()) == []
    other = parse("tmaze", ["--resume", str(run), "--data.root=other"]).config
    assert other.data.root == "other"  # relative, as typed on the command line


def test_a_store_is_found_from_any_folder(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stores" / "mine").mkdir(parents=True)
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    values = make_config(data__root="data").to_dict()
    values["data"]["store"] = "stores/mine"
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    (run / "environment.txt").write_text(f"command: x\nfolder: {tmp_path}\ngit: none\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = parse("tmaze", ["--resume", str(run)]).config.data
    assert (data.store, data.root) == (str(tmp_path / "stores" / "mine"), "data")
