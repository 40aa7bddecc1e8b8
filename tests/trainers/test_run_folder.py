"""Folders of runs: started, resumed or left unchanged, with one writer at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rate.errors import ConfigError
from tests.trainers.conftest import MakeConfig
from trainers.config import RunConfig
from trainers.run_lock import LOCK, only_writer
from trainers.runs import enter_run, run_folder
from trainers.train import train

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[Path, int]:
    """Returns the modification time of every file."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def crash_at(step: int) -> object:
    def report(phase: str, now: int, total: int) -> None:
        if phase == "training" and now >= step:
            raise RuntimeError("crash")

    return report


@contextmanager
def another_writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts a process that holds the folder's lock until it is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    program = (
        "import sys, pathlib\n"
        "from trainers.run_lock import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_writer_is_refused_by_name_until_the_first_is_gone(
    make_config: MakeConfig,
) -> None:
    """It starts or resumes the run; the first writer ends regularly or is killed."""
    config = make_config()
    folder = train(config).folder
    before = contents(folder)
    longer = make_config(training__max_steps=9)
    with another_writer(folder) as process:
        writer = rf"{folder} is being written by process {process.pid} on"
        for settings, resume in ((config, None), (longer, folder), (longer, "auto")):
            with pytest.raises(ConfigError, match=writer):
                train(settings, resume=resume)  # type: ignore[arg-type]
        assert {path: t for path, t in contents(folder).items() if path.name != LOCK} == before
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / LOCK).is_file()
    assert train(longer, resume=folder).steps == 9
    assert not (folder / LOCK).exists()


def test_another_run_of_the_name_may_be_written_at_the_same_time(make_config: MakeConfig) -> None:
    with (
        enter_run(make_config()) as first,
        pytest.warns(UserWarning, match=r"training\.max_steps is 8 there, and 9 here"),
        enter_run(make_config(training__max_steps=9)) as second,
    ):
        assert second == Path(f"{first}-run2")


def test_the_same_process_counts_as_a_second_writer(make_config: MakeConfig) -> None:
    config = make_config()
    with enter_run(config), pytest.raises(ConfigError, match="is being written"):
        train(config, resume="auto")


def test_a_lock_that_its_holder_removes_is_acquired_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder may end and unlink the file after another process opened it, before the lock."""
    import fcntl

    lock, opened = fcntl.flock, []

    def slow(descriptor: int, how: int) -> None:
        if not opened:
            (tmp_path / LOCK).unlink()
        opened.append(os.fstat(descriptor).st_ino)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with only_writer(tmp_path):
        assert len(opened) == 2
        assert opened[-1] == (tmp_path / LOCK).stat().st_ino


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="without locks"), only_writer(tmp_path):
        pass


def _nothing(folder: Path, config: RunConfig) -> None:
    """The folder is empty."""


def _before_its_config(folder: Path, config: RunConfig) -> None:
    (folder / "checkpoints").mkdir()
    (folder / ".config.yaml.tmp-77").write_text("environment: tm")
    (folder / LOCK).touch()


def _before_its_checkpoint(folder: Path, config: RunConfig) -> None:
    """Killed in training, or while it wrote its first checkpoint or its first weights."""
    folder.rmdir()
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=crash_at(2))  # type: ignore[arg-type]
    assert (folder / "metrics.csv").is_file()
    (folder / "checkpoints" / ".last.ckpt.tmp-77").write_bytes(b"half")
    (folder / "checkpoints" / "last.ckpt.sha256").write_text("0" * 64)
    (folder / "checkpoints" / "best").mkdir()
    (folder / "checkpoints" / "best" / "model.safetensors").write_bytes(b"no description yet")


@pytest.mark.parametrize("leave", [_nothing, _before_its_config, _before_its_checkpoint])
def test_a_run_without_a_checkpoint_is_replaced(make_config: MakeConfig, leave) -> None:
    config = make_config()
    folder = run_folder(config)
    folder.mkdir(parents=True)
    leave(folder, config)
    result = train(config)
    assert result.steps == config.training.max_steps
    assert not list(folder.rglob("*.tmp-*"))
    whole = train(make_config(logging__name="whole")).folder
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.parametrize(
    "file", ["checkpoints/last.ckpt", "checkpoints/best/model.json", "evaluation.json", "mine"]
)
def test_folders_with_results_are_not_changed(make_config: MakeConfig, file: str) -> None:
    config = make_config()
    path = run_folder(config) / file
    path.parent.mkdir(parents=True)
    path.touch()
    before = contents(run_folder(config))
    with pytest.raises(ConfigError, match=r"is there already.*--resume auto"):
        train(config)
    assert contents(run_folder(config)) == before


def test_one_command_starts_resumes_and_shows_a_run(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(RuntimeError, match="crash"):
        train(config, resume="auto", report=crash_at(5))  # type: ignore[arg-type]
    steps: list[int] = []

    def note(phase: str, step: int, total: int) -> None:
        if phase == "training":
            steps.append(step)

    result = train(config, resume="auto", report=note)
    assert steps == [4, 5, 6, 7, 8]
    before = contents(result.folder)
    shown = train(config, resume="auto", report=note)
    assert (shown.rows, shown.steps, shown.best_step) == (result.rows, 8, result.best_step)
    assert len(steps) == 5
    assert contents(result.folder) == before
    other = make_config(optimizer__learning_rate=0.5)
    with pytest.warns(UserWarning, match=r"optimizer\.learning_rate is 0\.001 there, and 0\.5"):
        assert train(other, resume="auto").folder == Path(f"{result.folder}-run2")
    assert contents(result.folder) == before
    assert train(make_config(training__max_steps=9), resume="auto").steps == 9


def test_a_finished_run_can_be_scored_with_other_settings(make_config: MakeConfig) -> None:
    train(make_config())
    result = train(make_config(evaluation__lengths=[7]), resume="auto")
    assert {row["length"] for row in result.rows} == {7}


@pytest.mark.parametrize(
    ("change", "is_noted"),
    [
        ({"training__strategy": "ddp"}, True),
        ({"training__threads": 2, "training__compile": "never"}, True),
        ({"training__checkpoint_segments": True}, True),
        ({"training__log_every_n_steps": 1}, False),
        ({"training__data_device": "host", "logging__comment": "on"}, False),
        ({"evaluation__every_n_steps": 0}, False),
    ],
    ids=str,
)
def test_settings_without_effect_on_batches_may_change_on_resume(
    make_config: MakeConfig, change: dict[str, object], is_noted: bool
) -> None:
    with pytest.raises(RuntimeError, match="crash"):
        train(make_config(), report=crash_at(5))  # type: ignore[arg-type]
    config = make_config(**change)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train(config, resume="auto").steps == 8
    notes = [str(w.message) for w in caught if "The run goes on with" in str(w.message)]
    assert len(notes) == is_noted
    for name, value in change.items() if is_noted else ():
        assert f"{name.replace('__', '.')} {value} (" in notes[0]


@pytest.mark.parametrize(
    "change",
    [
        {"training__batch_size": 8},
        {"training__precision": "bf16-mixed"},
        {"training__seed": 3, "logging__name": "x"},
        {"model__dropout": 0.0},
        {"data__window": "random"},
        {"loss__label_smoothing": 0.1},
    ],
    ids=str,
)
def test_settings_that_change_results_are_refused_by_name(
    make_config: MakeConfig, change: dict[str, object]
) -> None:
    with enter_run(make_config()) as folder:
        (folder / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ConfigError) as caught:
        train(make_config(**change), resume=folder)
    assert next(iter(change)).replace("__", ".") in str(caught.value)
    assert f"--init {folder}" in str(caught.value)
