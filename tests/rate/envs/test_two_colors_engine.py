from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gymnasium.error import ResetNeeded

from rate.envs import two_colors, two_colors_program
from rate.envs.two_colors import FORWARD, TwoColors
from rate.envs.two_colors_engine import EngineError
from rate.envs.two_colors_scenario import build_scenario
from rate.errors import ConfigError
from tests.processes import PATIENCE

pytest.importorskip("vizdoom")

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def engines_of(process):
    """Returns the engine processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().rsplit(")", 1)
        except OSError:
            continue
        if "vizdoom" in name and int(rest.split()[1]) == process:
            found.append(int(stat.parent.name))
    return found


@on_linux
def test_after_the_engine_dies_a_reset_starts_another():
    env = TwoColors()
    frame, _ = env.reset(seed=0)
    before = set(engines_of(os.getpid()))
    env.close()
    env.reset(seed=0)
    (engine,) = set(engines_of(os.getpid())) - before
    os.kill(engine, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"engine failed at tic 1: .*Resetting the environment"):
        env.step(FORWARD)
    with pytest.raises(ResetNeeded):
        env.step(FORWARD)
    assert (env.reset(seed=0)[0] == frame).all()
    env.close()
    env.close()


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(ConfigError, match="make install EXTRAS=vizdoom"):
        TwoColors().reset(seed=0)


def test_a_missing_engine_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["vizdoom"], "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ConfigError, match="the ViZDoom engine is not there"):
        TwoColors().reset(seed=0)


def test_a_refused_scenario_is_reported_with_the_engines_output(monkeypatch):
    broken = build_scenario(90, 1).replace(b"A_GiveInventory", b"A_GiveInventorx")
    monkeypatch.setattr(two_colors, "build_scenario", lambda *_: broken)
    with pytest.raises(ConfigError, match=r"(?is)did not read.*invalid state parameter a_giv"):
        TwoColors().reset(seed=0)


def test_a_scenario_is_checked_once_per_process(monkeypatch):
    env = TwoColors()
    env.reset(seed=0)
    env.close()

    def run(*_, **__):
        raise AssertionError("checked again")

    monkeypatch.setattr(two_colors_program.subprocess, "Popen", run)
    env.reset(seed=0)
    env.close()


def test_nothing_is_printed_or_written_to_the_working_directory(tmp_path):
    code = """if True:
        from rate.envs.two_colors import TwoColors
        env = TwoColors(length=3)
        env.reset(seed=0)
        env.step(2)
        env.close()
        TwoColors().reset(seed=1)  # not closed
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


@on_linux
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not there")
def test_the_engine_ends_when_its_client_is_killed(tmp_path):
    code = """if True:
        import time
        from rate.envs.two_colors import TwoColors
        env = TwoColors()
        env.reset(seed=0)
        print("ready", flush=True)
        time.sleep(3600)
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "TMPDIR": str(tmp_path),
    }
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        (engine,) = engines_of(process.pid)
        command = Path(f"/proc/{engine}/cmdline").read_text().split("\0")
        instance = command[command.index("+viz_instance_id") + 1]
        process.kill()
        process.wait()
        deadline = time.monotonic() + PATIENCE
        while Path(f"/proc/{engine}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{engine}").exists()
        for segment in Path("/dev/shm").glob(f"ViZDoom*{instance}"):
            segment.unlink()


def test_the_scenario_is_deterministic_and_can_be_written_by_a_command(tmp_path):
    path = tmp_path / "out.wad"
    subprocess.run(
        [sys.executable, "-m", "rate.envs.two_colors_scenario", str(path)],
        check=True,
        timeout=PATIENCE,
    )
    assert path.read_bytes() == build_scenario(90, 10)
    assert path.read_bytes()[:4] == b"PWAD"
