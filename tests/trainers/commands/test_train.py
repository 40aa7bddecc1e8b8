"""Training with invalid data, settings or folders is refused at the start and leaves no files."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.tmaze import generate_tmaze
from tests.digests import renew_store
from tests.processes import PATIENCE, wait_until
from trainers.commands.train import train_on
from trainers.config_files import load_config_file


def files(*folders: Path) -> set[Path]:
    """Returns all files below some folders."""
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of forty episodes of at most 27 observations."""
    return generate_tmaze(tmp_path_factory.mktemp("store"), 27, 40)


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _truncated(folder: Path) -> str:
    cut_in_half(folder / "actions.npy")
    return "actions.npy: the file has"


def _without_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "not a data set of a known format"


def _half_a_manifest(folder: Path) -> str:
    cut_in_half(folder / "manifest.json")
    return "manifest.json: not valid JSON"


def _of_another_environment(folder: Path) -> str:
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["environment"]["action_space"]["n"] = 7
    manifest.write_text(json.dumps(content), encoding="utf-8")
    renew_store(folder)
    return "the action_space of the data is Discrete(7), but tmaze has Discrete(4)"


@pytest.mark.parametrize(
    "damage", [_truncated, _without_manifest, _half_a_manifest, _of_another_environment]
)
def test_a_damaged_data_set_is_refused_by_name(
    damage: Callable[[Path], str],
    store: Path,
    short: list[str],
    tmp_path: Path,
    error_of: Callable[..., str],
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(store, broken)
    message = damage(broken)
    before = files(tmp_path)
    output = f"--logging.output={tmp_path / 'runs'}"
    error = error_of(train_on, "tmaze", [*short, output, f"--data.store={broken}"])
    assert message in error
    assert str(broken) in error
    assert files(tmp_path) == before


def test_a_folder_without_data_is_refused(
    short: list[str], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    output = f"--logging.output={tmp_path / 'runs'}"
    for place, what in ((tmp_path, "an empty folder"), (tmp_path / "nowhere", "there is no such")):
        error = error_of(train_on, "tmaze", [*short, output, f"--data.store={place}"])
        assert f"{place}: {what}" in error
    assert files(tmp_path) == set()


def test_a_window_longer_than_every_episode_is_refused(
    store: Path, short: list[str], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    options = [f"--logging.output={tmp_path}", f"--data.store={store}", "--training.segments=9"]
    error = error_of(train_on, "tmaze", [*short, *options, "--model.context_length=10"])
    assert "a window of 90 steps (segments x context length) is longer than any episode" in error
    assert files(tmp_path) == set()


@pytest.mark.parametrize("option", ["logging.output", "data.root"])
def test_a_folder_that_cannot_be_written_is_refused(
    option: str, short: list[str], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    options = [f"--logging.output={tmp_path / 'runs'}", f"--{option}={tmp_path / 'file' / 'below'}"]
    error = error_of(train_on, "tmaze", [*short, *options])
    assert str(tmp_path / "file") in error
    assert f"--{option}" in error
    assert files(tmp_path) == {tmp_path / "file"}


def test_an_existing_run_is_not_changed(
    trained: Callable[[str], Path], short: list[str], error_of: Callable[..., str]
) -> None:
    folder = trained("rate")
    before = {path: path.stat().st_mtime_ns for path in files(folder)}
    error = error_of(train_on, "tmaze", [f"--logging.output={folder.parent}", *short])
    assert f"{folder} is there already" in error
    assert f"--resume {folder}" in error
    assert {path: path.stat().st_mtime_ns for path in files(folder)} == before


def test_a_run_is_resumed(
    trained: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained("rate"), tmp_path / "run")
    train_on("tmaze", [f"--resume={folder}", "--training.max_steps=4"])
    assert f"The run is in {folder}/" in "".join(capsys.readouterr().out.split("\n"))
    assert load_config_file(folder / "config.yaml").training.max_steps == 4
    environment = (folder / "environment.txt").read_text(encoding="utf-8")
    assert environment.count("command: ") == 2


def test_resuming_with_other_settings_is_refused(
    trained: Callable[[str], Path], error_of: Callable[..., str]
) -> None:
    folder = trained("rate")
    error = error_of(train_on, "tmaze", [f"--resume={folder}", "--seed=2"])
    assert "training.seed is 2" in error
    error = error_of(train_on, "tmaze", [f"--resume={folder}", "--training.max_steps=1"])
    assert "a run can be made longer, not shorter" in error


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_resuming_from_a_damaged_checkpoint_is_refused(
    content: bytes | None,
    trained: Callable[[str], Path],
    tmp_path: Path,
    error_of: Callable[..., str],
) -> None:
    folder = shutil.copytree(trained("rate"), tmp_path / "run")
    for checkpoint in (folder / "checkpoints").glob("*.ckpt"):
        if content is None:
            cut_in_half(checkpoint)
        else:
            checkpoint.write_bytes(content)
    options = [f"--resume={folder}", "--training.max_steps=4"]
    error = error_of(train_on, "tmaze", options, code=1)
    assert "last.ckpt" in error


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--evaluation.lengths=9,2", "evaluation.lengths has 2"),
        ("--evaluation.selection_lengths=-3", "evaluation.selection_lengths has -3"),
        ("--training.precision=13-true", "13-true"),
        ("--training.accelerator=abacus", "abacus"),
        ("--training.strategy=hope", "hope"),
        ("--data.seed=-1", "data.seed is -1"),
        ("--logging.name=a/b", "logging.name is 'a/b'"),
        ("--data.max_length=11", "data.max_length=11 is shorter than a training window"),
    ],
)
def test_settings_that_would_fail_later_are_refused_at_the_start(
    option: str, message: str, short: list[str], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    assert message in error_of(train_on, "tmaze", [*short, f"--logging.output={tmp_path}", option])
    assert files(tmp_path) == set()


def test_a_missing_wandb_is_named(
    short: list[str], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed here")
    options = [f"--logging.output={tmp_path}", "--logging.wandb=true"]
    assert "pip install" in error_of(train_on, "tmaze", [*short, *options])
    assert files(tmp_path) == set()


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_during_imports_is_a_one_line_error(number: int) -> None:
    command = [sys.executable, "scripts/train_tmaze.py"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        status = Path(f"/proc/{process.pid}/status")
        wait_until(lambda: handled(status) >> (number - 1) & 1)
        process.send_signal(number)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    name = signal.Signals(number).name
    assert error == f"Stopped by {name}; the same command begins again.\n"


def handled(status: Path) -> int:
    """Returns the bit mask of handled signals of a process; 0 before SIGUSR1 is handled."""
    mask = int(re.findall(r"SigCgt:\s*(\w+)", status.read_text(encoding="utf-8"))[0], 16)
    return mask if mask >> (signal.SIGUSR1 - 1) & 1 else 0
