"""A disk that is full ends what writes to it with one line, and loses nothing before it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from datamodules.disk_errors import require_room
from datamodules.tmaze import generate_tmaze
from tests.processes import PATIENCE
from tests.trainers.conftest import MakeConfig
from trainers.errors import TrainingError
from trainers.train import train

needs_fallocate = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs Linux")


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@needs_fallocate
def test_minari_data_on_a_full_disk_end_with_one_line(tmp_path: Path) -> None:
    """HDF5 itself ends the process with SIGSEGV and thousands of lines."""
    store, made = generate_tmaze(tmp_path / "data", 90, num_episodes=60), tmp_path / "made"
    free = (4 << 20) + 20_000  # for one of the episodes
    convert = "from trainers.commands.convert import main; import sys; main(sys.argv[1:])"
    command = [sys.executable, "-c", convert, str(store), str(made / "x-v0"), "--to", "minari"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: limit_files(free),
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert "cannot be written (File too large)" in errors[0]
    assert "Traceback" not in done.stderr
    assert "converting  1/60" in done.stderr
    assert not list(made.iterdir())


@needs_fallocate
def test_room_is_reserved_for_a_moment_only(tmp_path: Path) -> None:
    require_room(tmp_path / "x", 1000)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"File too large|No space left"):
        require_room(tmp_path / "x", 1 << 62)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_curves_on_a_full_disk_end_a_run_by_name_and_lose_nothing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard writes in a thread, whose error alone would be a traceback."""
    settings = {"evaluation__every_n_steps": 0, "training__checkpoint_every_n_steps": 2}
    whole = train(make_config(logging__name="whole", **settings)).folder
    written = 0

    def write(self: RecordWriter, data: bytes) -> None:
        nonlocal written
        written += 1
        if written > 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, data)

    original = RecordWriter.write
    config = make_config(logging__tensorboard=True, logging__name="full", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", write)
        with pytest.raises(TrainingError, match=r"No space left on device.* make room"):
            train(config)
    folder = train(config, resume="auto").folder
    assert written > 40
    for file in ("metrics.csv", "checkpoints/last/model.safetensors"):
        assert (folder / file).read_bytes() == (whole / file).read_bytes()
