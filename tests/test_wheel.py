"""The wheel, installed into a separate environment and used outside of the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rate", "datamodules", "trainers")
SOURCES = (*PACKAGES, "scripts", "pyproject.toml", "README.md", "LICENSE")
SMALL = [
    *("--training.max_steps=20", "--training.batch_size=4", "--evaluation.every_n_steps=0"),
    *("--evaluation.episodes=2", "--logging.progress=false"),
]
pytestmark = pytest.mark.slow
Rate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of these sources, built offline."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    build = ["-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-q"]
    command = [sys.executable, *build, "--wheel-dir", folder / "dist", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "dist").glob("*.whl")
    return Path(made)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and the dependencies of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("env") / "clean"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    command = [sys.executable, "-m", "pip", "--python", str(python), *install]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / "bin"


@pytest.fixture
def rate(installed: Path, tmp_path: Path) -> Rate:
    """Runs the command `rate` in a folder that has another package `scripts`."""
    (tmp_path / "scripts").mkdir()
    for name in ("__init__", "train", "train_tmaze", "bootstrap"):
        (tmp_path / "scripts" / f"{name}.py").write_text("raise SystemExit('mine')\n", "utf-8")
    known = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}

    def call(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [installed / "rate", *words],
            cwd=tmp_path,
            env=known,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return call


def test_the_wheel_has_the_packages_with_their_data_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".json", ".safetensors", ".md")
        or path.name == "py.typed"
    }
    assert there == {name for name in names if ".dist-info/" not in name}


def test_a_model_is_trained_evaluated_and_plotted(rate: Rate, tmp_path: Path) -> None:
    rate("train", "tmaze", *SMALL, "--data.num_episodes=40", "--evaluation.lengths=9")
    environment = (tmp_path / "runs" / "tmaze-rate-1" / "environment.txt").read_text(
        encoding="utf-8"
    )
    assert "bin/rate train tmaze" in environment
    done = rate("evaluate", "runs/tmaze-rate-1", "--episodes", "2", "--results", "scores.csv")
    assert "Success rate" in done.stdout
    rate("plot", "scores.csv")
    rate("plot", "runs/tmaze-rate-1")
    assert (tmp_path / "scores.png").is_file()
    assert (tmp_path / "learning.png").is_file()
    small = [*SMALL, "--data.num_episodes=40", "--evaluation.lengths=9", "--only", "dt"]
    rate("study", "quickstart", *small, "--jobs=1")
    assert (tmp_path / "runs" / "quickstart" / "quickstart.png").is_file()


def test_own_data_and_registered_environments_are_trained_on(rate: Rate, tmp_path: Path) -> None:
    steps = np.arange(60)
    np.savez(
        tmp_path / "mine.npz",
        observations=np.zeros((60, 4), np.float32),
        actions=steps % 2,
        rewards=np.ones(60),
        episode=steps // 10,
    )
    own = ["--data", "mine.npz", "--model", "rmt", *SMALL]
    rate("train", "--env", "CartPole-v1", *own)
    assert (tmp_path / "runs" / "CartPole-v1-rmt-1" / "evaluation.json").is_file()
    rate("validate", "mine.npz")
    rate("convert", "mine.npz", "store")
    assert (tmp_path / "store" / "manifest.json").is_file()


def test_a_model_of_the_package_acts(rate: Rate, tmp_path: Path) -> None:
    assert "1.00" in rate("demo", "tmaze-lstm", "--episodes", "2").stdout
    assert (tmp_path / "demo.gif").is_file()


@pytest.mark.long
def test_messages_name_commands_of_the_installation(rate: Rate) -> None:
    assert "usage: rate train" in rate("train", "tmaze", "--help").stdout
    assert "rate collect minigrid" in rate("collect", "--help").stdout
    wrong = rate("train", "tmaze", "--data.store=nothing", code=2).stderr
    assert "nothing: there is no such file or folder" in wrong
    missing = rate(
        "train", "mujoco", "--model=dt_quick", "--dataset=hopper-medium-v2", code=2
    ).stderr
    assert "scripts/" not in missing
    assert "rate download hopper-medium-v2" in missing or "rate-trainer[mujoco]" in missing
    assert "tmaze" in rate("doctor", "tmaze").stdout
    assert rate("--version").stdout.startswith("rate-trainer ")
