"""`rate doctor` survives a failing part, names the cause and prints a remedy."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rate.advice import ROOT
from rate.errors import ConfigError
from scripts import bootstrap
from trainers.commands import doctor, probe
from trainers.commands.probe import TRAINER, Finding
from trainers.environments import NAMES

posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Finding]:
    """Findings by part that replace the real checks; parts that are missing here work."""
    findings: dict[str, Finding] = {}

    def examine(name: str, seconds: float) -> Finding:
        return findings.get(name, Finding(name, works=True))

    monkeypatch.setattr(doctor, "examine", examine)
    return findings


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        doctor.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_tmaze_runs_in_its_own_process() -> None:
    finding = doctor.examine("tmaze")
    assert finding.works, finding.problem
    assert finding.facts["draws with"] == "nothing to draw"
    assert int(finding.facts["steps/s"].replace(",", "")) > 0
    assert "numpy" in finding.facts["packages"]


def test_the_trainer_itself_is_described() -> None:
    finding = probe.probe(TRAINER)
    assert finding.works, finding.problem
    titles = {"Python", "PyTorch", "CUDA", "Lightning", "cores", "memory", "disk"}
    assert titles <= finding.facts.keys()
    assert all(finding.facts.values())


def crash(name: str) -> Finding:
    ctypes.string_at(0)
    return Finding(name)


def leave(name: str) -> Finding:
    print("simulator chatter")
    sys.exit("engine not found")


def hang(name: str) -> Finding:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as one that does not listen
    time.sleep(3600)
    return Finding(name)


@posix
@pytest.mark.parametrize(
    ("patient", "problem"),
    [
        (crash, r"it was killed by SIGSEGV \(segmentation fault\), File .*ctypes"),
        (leave, r"it ended with exit code 1, engine not found$"),
        (hang, r"it did not answer within 5 seconds$"),
    ],
)
def test_a_crash_or_hang_is_a_line_that_names_the_cause_and_the_place(
    monkeypatch: pytest.MonkeyPatch, patient: Callable[[str], Finding], problem: str
) -> None:
    monkeypatch.setattr(doctor, "probe", patient)
    finding = doctor.examine("vizdoom", seconds=5)
    assert not finding.works
    assert re.match(problem, finding.problem), finding.problem


def test_optional_parts_are_listed_with_their_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = probe.probe(TRAINER).facts
    assert facts.keys() >= probe.OPTIONAL.keys()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    fact = probe.probe(TRAINER).facts["arrow"]
    assert fact == f"none: no Parquet and Arrow files. {probe.install('arrow')}"

    def broken(name: str) -> None:
        raise OSError("libavcodec.so.61: cannot open shared object file")

    monkeypatch.setattr(probe, "import_module", broken)
    finding = probe.probe(TRAINER)
    assert finding.works  # without it, too
    assert finding.facts["lerobot"].startswith("av is broken (OSError: libavcodec.so.61")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    finding = probe.probe("vizdoom")
    assert (finding.problem, finding.fix) == ("vizdoom not installed", "extra:vizdoom")


def test_an_unsupported_python_is_reported_with_a_supported_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    finding = probe.probe("memory_maze")
    assert "no wheel for Python 3.13" in finding.problem
    assert "PYTHON=python3.12" in finding.fix


def test_a_mujoco_that_breaks_dm_control_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "find_spec", lambda name: name)
    monkeypatch.setattr(probe.metadata, "version", lambda name: "4.0.0")
    finding = probe.probe("memory_maze")
    assert "mujoco 4.0.0" in finding.problem
    assert '"mujoco>=3.17.0,<4"' in finding.fix


@pytest.mark.parametrize(("renderer", "fix"), [(None, "libegl1"), ("osmesa", "unset MUJOCO_GL")])
def test_missing_rendering_libraries_are_named(
    monkeypatch: pytest.MonkeyPatch, renderer: str | None, fix: str
) -> None:
    from rate.envs import headless

    def refuse() -> str:
        raise ConfigError("egl: no library") if renderer is None else AttributeError("glGetError")

    monkeypatch.setattr(headless, "choose_renderer", refuse)
    monkeypatch.setattr(probe, "_check_packages", lambda needs, extra: None)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if renderer:
        monkeypatch.setenv("MUJOCO_GL", renderer)
    finding = probe.probe("memory_maze")
    assert not finding.works
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ConfigError("no engine: install it"), "no engine: install it"),
        (ValueError("an odd frame"), "ValueError: an odd frame"),
    ],
)
def test_an_exception_of_an_environment_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    def fail(name: str) -> float:
        raise error

    monkeypatch.setattr(probe, "measure", fail)
    assert probe.probe("tmaze").problem == problem


@pytest.mark.parametrize(
    ("stamp", "command"),
    [
        ({"extras": ["test"]}, "make install EXTRAS=vizdoom VENV={venv}"),
        # A user's environment, and one whose package was removed.
        ({}, '{python} -m pip install -c requirements.lock -e ".[vizdoom]"'),
        ({"extras": ["vizdoom"]}, '{python} -m pip install -c requirements.lock -e ".[vizdoom]"'),
    ],
)
def test_the_remedy_fits_the_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stamp: dict[str, Any], command: str
) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    if stamp:
        (venv / bootstrap.STAMP).write_text(json.dumps(stamp), encoding="utf-8")
    monkeypatch.setattr(sys, "prefix", str(venv))
    monkeypatch.chdir(ROOT)
    wanted = command.format(python=sys.executable, venv=venv)
    assert doctor.command_for("extra:vizdoom") == wanted
    monkeypatch.chdir(tmp_path)  # as for everybody who has no clone
    pip = f'{sys.executable} -m pip install "rate-trainer[vizdoom]"'
    assert doctor.command_for("extra:vizdoom") == pip


def test_all_parts_are_checked_by_default(told: dict[str, Finding], tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert run("--json", str(file)) == 0
    names = [entry["name"] for entry in json.loads(file.read_text(encoding="utf-8"))]
    assert names == [TRAINER, *NAMES]
    assert run("memory-maze", "tmaze", "--json", str(file)) == 0
    names = [entry["name"] for entry in json.loads(file.read_text(encoding="utf-8"))]
    assert names == ["memory_maze", "tmaze"]


def test_the_exit_code_depends_on_the_requested_parts(
    told: dict[str, Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    told["vizdoom"] = Finding("vizdoom", problem="died: SIGSEGV", fix="apt-get install [x]")
    assert run("tmaze") == 0
    assert run("vizdoom") == 1
    assert run() == 1
    output = capsys.readouterr().out
    assert "vizdoom: died: SIGSEGV\n  apt-get install [x]\n" in output


def test_commands_stay_on_one_line_on_a_narrow_screen(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("vizdoom", problem="a " * 60, fix="apt-get install " + "b " * 60)
    doctor.show([finding], Console(width=40))
    assert finding.fix in capsys.readouterr().out


def test_a_misspelt_environment_is_refused(error_of: Callable[..., str]) -> None:
    assert "did you mean 'vizdoom'?" in error_of(doctor.main, ["vizdom"])
