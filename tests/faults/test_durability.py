"""What a run relies on is on the disk before; a damaged best model and a requeued job go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from rate import files
from tests.trainers.conftest import MakeConfig
from trainers.errors import CheckpointError
from trainers.slurm import requeue, resume_of_job
from trainers.train import train


def test_all_that_is_renamed_was_flushed_and_metrics_before_the_checkpoint(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, Path, int]] = []  # what, where, size
    flush, rename = os.fsync, Path.replace

    def record_flush(descriptor: int) -> None:
        flush(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        events.append(("flush", path, os.fstat(descriptor).st_size))

    def record_rename(self: Path, target: Path) -> Path:
        metrics = target.parents[1] / "metrics.csv"
        size = metrics.stat().st_size if metrics.is_file() else 0
        if (self.name, target.name) != (target.name, self.name) and self.stat().st_nlink == 1:
            events.append(("rename", self, self.stat().st_size))
            assert ("flush", self, self.stat().st_size) in events
        if target.name == "last.ckpt":
            assert ("flush", metrics, size) in events
        return rename(self, target)

    monkeypatch.setattr(files.os, "fsync", record_flush)
    monkeypatch.setattr(Path, "replace", record_rename)
    folder = train(make_config()).folder
    assert sum(what == "rename" for what, *_ in events) > 10
    flushed = [path for what, path, _ in events if what == "flush"]
    for place in (folder, folder.parent, folder / "checkpoints", folder / "checkpoints" / "best"):
        assert place in flushed
    whole = (folder / "metrics.csv").stat().st_size
    assert ("flush", folder / "metrics.csv", whole) in events  # with the scores


def test_a_best_model_that_is_empty_blocks_no_resume(make_config: MakeConfig) -> None:
    folder = train(make_config()).folder
    (folder / "evaluation.json").unlink()
    (folder / "checkpoints" / "best" / "model.safetensors").write_bytes(b"")
    longer = make_config(training__max_steps=12)
    with pytest.warns(UserWarning, match=r"best is damaged: the weights .* of step 8, are lost"):
        result = train(longer, resume=folder)
    assert result.best_step == 12
    assert {row["which"] for row in result.rows} == {"last", "best"}


@pytest.mark.parametrize("change", ["loops", "state_dict", "global_step"])
def test_an_altered_state_with_its_digest_is_refused_by_name(
    change: str, make_config: MakeConfig
) -> None:
    folder = train(make_config(training__max_steps=2, evaluation__every_n_steps=0)).folder
    path = folder / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    state[change] = "x" if change == "global_step" else {"x": 3}
    torch.save(state, path)
    digest = files.file_sha256(path)
    path.with_name("last.ckpt.sha256").write_text(f"{digest}  last.ckpt\n")
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be continued from"):
        train(make_config(training__max_steps=4, evaluation__every_n_steps=0), resume=folder)


def test_a_job_that_is_put_back_into_the_queue_continues_its_run(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, program = tmp_path / "requeued", tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $* > {log}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    config = make_config(training__max_steps=2, evaluation__every_n_steps=0)
    assert resume_of_job(config) is None
    train(config)
    assert resume_of_job(config) is None  # another run of that name in the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resume_of_job(config) == "auto"
    requeue(signal.SIGTERM)  # `scancel`
    assert not log.exists()
    requeue(signal.SIGUSR1)
    assert log.read_text() == "requeue 42\n"
    program.write_text("#!/bin/sh\necho no such job >&2; exit 1\n")
    with pytest.warns(UserWarning, match="not put back into the queue: no such job"):
        requeue(signal.SIGUSR2)
    monkeypatch.setenv("SLURM_JOB_ID", "43")
    assert resume_of_job(config) is None
