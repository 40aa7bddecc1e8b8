"""The environment is created once and again when its inputs change; other files are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import bootstrap


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two files, with fakes for the slow steps; returns its environment."""
    for name in bootstrap.INPUTS:
        shutil.copy(bootstrap.ROOT / name, tmp_path)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "create", lambda venv: (venv / "made").touch())
    monkeypatch.setattr(bootstrap, "works", lambda venv: (venv / "made").exists())
    return tmp_path / ".venv"


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The extras of every installation."""
    calls: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "install", lambda python, extras: calls.append(list(extras)))
    return calls


def test_a_second_call_installs_nothing(project: Path, installs: list[list[str]]) -> None:
    bootstrap.prepare(project, {"test", "lint"})
    bootstrap.prepare(project, {"test", "lint"})
    bootstrap.prepare(project, set())
    assert installs == [["lint", "test"]]


def test_a_new_extra_is_added(project: Path, installs: list[list[str]]) -> None:
    bootstrap.prepare(project, {"test"})
    bootstrap.prepare(project, {"wandb"})
    assert installs == [["test"], ["test", "wandb"]]


@pytest.mark.parametrize("name", bootstrap.INPUTS)
def test_a_changed_input_installs_again(
    project: Path, installs: list[list[str]], name: str
) -> None:
    bootstrap.prepare(project, {"test"})
    (project.parent / name).write_text("changed", encoding="utf-8")
    bootstrap.prepare(project, set())
    assert installs == [["test"], ["test"]]


def test_an_interrupted_installation_is_resumed(
    project: Path, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(python: Path, extras: Sequence[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install", fail)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.prepare(project, {"test"})
    bootstrap.prepare(project, {"test"})
    assert installs == [["test"]]


def test_a_moved_environment_is_replaced(project: Path, installs: list[list[str]]) -> None:
    bootstrap.prepare(project, {"test"})
    stamp = json.loads((project / bootstrap.STAMP).read_text(encoding="utf-8"))
    (project / bootstrap.STAMP).write_text(json.dumps({**stamp, "root": "/", "inputs": ""}))
    (project / "left over").touch()
    bootstrap.prepare(project, set())
    assert not (project / "left over").exists()
    assert (project / "made").exists()


def test_a_folder_with_other_files_is_kept(
    project: Path, installs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    project.mkdir()
    (project / "thesis.tex").touch()
    assert bootstrap.main(["--venv", str(project)]) == 1
    assert (project / "thesis.tex").exists()
    assert "VENV=" in capsys.readouterr().err
    assert installs == []


def test_a_full_disk_is_reported_before_anything_is_installed(
    project: Path, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(project.parent)._replace(free=700_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(bootstrap.BootstrapError, match=r"needs 2\.5 GB.* 0\.7 GB .* VENV="):
        bootstrap.prepare(project, {"test"})
    assert installs == []
    assert list(project.iterdir()) == []


def test_venv_virtualenv_and_pip_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def nothing_works(command: Sequence[object], **_: object) -> bool:
        tried.append(" ".join(map(str, command[1:3])))
        return False

    monkeypatch.setattr(bootstrap, "succeeds", nothing_works)
    (tmp_path / ".venv").mkdir()
    with pytest.raises(bootstrap.BootstrapError, match="apt install python3-venv"):
        bootstrap.create(tmp_path / ".venv")
    assert tried == ["-m venv", "-m virtualenv", "-m pip"]
    assert not (tmp_path / ".venv").exists()


def test_pip_gets_the_lock_as_constraints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []

    def record(command: Sequence[object], **_: object) -> bool:
        commands.append(" ".join(map(str, command)))
        return True

    monkeypatch.setattr(bootstrap, "succeeds", record)
    bootstrap.install(tmp_path / "python", ["lint", "test"])
    assert len(commands) == 2
    assert all(f"--constraint {bootstrap.ROOT}/requirements.lock" in line for line in commands)
    assert commands[1].endswith(f"--editable {bootstrap.ROOT}[lint,test]")


def test_extras_may_have_underscores_and_spaces() -> None:
    assert bootstrap.extras_named("vizdoom,memory_maze wandb,") == {
        "memory-maze",
        "vizdoom",
        "wandb",
    }


def test_a_misspelt_extra_is_refused_before_anything_is_created(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap.main(["--venv", str(tmp_path / "venv"), "--extras", "vizdom"]) == 1
    error = capsys.readouterr().err
    assert "no extra vizdom" in error
    assert "vizdoom" in error.replace("extra vizdom;", "")
    assert not (tmp_path / "venv").exists()
