"""Code that a file names runs only if the user has named it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rate.errors import ConfigError
from tests.trainers.conftest import WALK
from trainers import trust
from trainers.commands.evaluate import main as evaluate_main
from trainers.commands.train import main as train_main
from trainers.config import RunConfig
from trainers.registry import environment_of, get_environment
from trainers.train import train


def test_code_named_in_a_file_runs_only_if_the_user_names_it(
    walk_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = train(walk_config).folder
    others = (
        "XDG_STATE_HOME",
        str(tmp_path / "others"),
    )  # a user who received the run from another one
    monkeypatch.setenv(*others)
    monkeypatch.setattr("rate.trust._NAMED", set())
    monkeypatch.setattr("rate.envs.own.import_path", forbidden)
    for run in (
        lambda: evaluate_main([str(folder)]),
        lambda: train_main(["--resume", str(folder)]),
    ):
        with pytest.raises(SystemExit):
            run()
        message = capsys.readouterr().err
        assert f"If you trust where the file comes from, name it yourself: --env {WALK}" in message
    monkeypatch.undo()
    monkeypatch.setenv(*others)
    monkeypatch.syspath_prepend(str(tmp_path / "theirs"))
    evaluate_main([str(folder), "--env", WALK, "--episodes", "2", "--env.size=3"])
    monkeypatch.setattr("rate.trust._NAMED", set())
    evaluate_main([str(folder), "--episodes", "2"])  # the permission is saved


def forbidden(*_: Any) -> Any:
    raise AssertionError("code of a file is run")


def test_a_python_that_a_file_names_is_not_run(tmp_path: Path) -> None:
    found = get_environment("CartPole-v1").spec
    evil = replace(found, target_return=1.0, options={"python": str(tmp_path / "evil")})
    with pytest.raises(ConfigError, match=rf"name it yourself: --env\.python {tmp_path}/evil"):
        environment_of(evil)


def test_without_a_home_permissions_last_for_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("rate.trust.Path.home", no_home)
    monkeypatch.setattr("rate.trust._NAMED", set())
    with pytest.raises(ConfigError, match="have not named before on this computer"):
        trust.require("a.b:C", {})
    trust.remember("a.b:C", {})
    trust.require("a.b:C", {})
    trust.require("CartPole-v1", {})  # installed under a separate name


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
