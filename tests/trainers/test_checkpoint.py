"""Checkpoint files: full disks, crashes, damage, and the steps at which they are saved."""

from __future__ import annotations

import errno
import os
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from trainers.callbacks.checkpoint import SafeCheckpointIO, find_checkpoint
from trainers.callbacks.schedule import Every
from trainers.errors import CheckpointError


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch) -> None:
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    def full(content, file) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*The checkpoint before"):
        io.save_checkpoint({"step": 2}, path)
    assert io.load_checkpoint(path) == {"step": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_a_full_disk_is_named_instead_of_the_error_of_torch(tmp_path, monkeypatch) -> None:
    def full(content, file) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"\(\[Errno \d+\] No space left on device\)\. Make"):
        SafeCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


class Crash(BaseException):
    """Simulates the death of the process: only `finally` blocks run after it."""


def die_at(number: int, patch: pytest.MonkeyPatch) -> list[int]:
    """Raises `Crash` before the `number`-th rename or sync; returns the calls so far, `[int]`."""
    calls = [0]

    def wrap(call):
        def counted(*arguments):
            calls[0] += 1
            if calls[0] == number:
                raise Crash
            return call(*arguments)

        return counted

    patch.setattr(os, "fsync", wrap(os.fsync))
    patch.setattr(Path, "replace", wrap(Path.replace))
    patch.setattr(Path, "hardlink_to", wrap(Path.hardlink_to))
    return calls


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("saved", [0, 1, 2])
def test_a_crash_during_a_save_leaves_a_resumable_run(
    tmp_path, monkeypatch, saved, has_links
) -> None:
    """A second crash, in the save after the first one, leaves a checkpoint as well."""

    def refuse(link, path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)

    def save(folder: Path, step: int, crash: int) -> bool:
        with monkeypatch.context() as patch:
            calls = die_at(crash, patch)
            with suppress(Crash):
                SafeCheckpointIO().save_checkpoint({"step": step}, folder / "last.ckpt")
        return calls[0] < crash

    def step_of(folder: Path) -> int:
        """Returns the step that a run resumes from; 0 is the start."""
        path = find_checkpoint(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return 0 if path is None else SafeCheckpointIO().load_checkpoint(path)["step"]

    for first in range(1, 100):
        for second in range(1, 100) if saved < 2 else [100]:
            folder = tmp_path / f"{first}-{second}"
            for step in range(1, saved + 1):
                SafeCheckpointIO().save_checkpoint({"step": step}, folder / "last.ckpt")
            whole = save(folder, saved + 1, first)
            found = step_of(folder)
            assert found in ({saved + 1} if whole else {saved, saved + 1}), (first, second)
            done = save(folder, 9, second)
            assert step_of(folder) in ({9} if done else {found, 9}), (first, second)
            if done:
                break
        if whole:
            break
    else:
        raise AssertionError("a save has no end")


def test_a_last_checkpoint_exists_at_any_time(tmp_path, monkeypatch) -> None:
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    for number in range(1, 100):
        with monkeypatch.context() as patch:
            calls = die_at(number, patch)
            with suppress(Crash):
                io.save_checkpoint({"step": 2}, path)
        assert io.load_checkpoint(path)["step"] in (1, 2)  # without a warning
        if calls[0] < number:
            break


def test_the_previous_checkpoint_is_kept(tmp_path) -> None:
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    for step in range(3):
        io.save_checkpoint({"step": step}, path)
    assert io.load_checkpoint(path) == {"step": 2}
    assert io.load_checkpoint(tmp_path / "previous.ckpt") == {"step": 1}


def test_a_damaged_checkpoint_does_not_replace_a_good_one(tmp_path) -> None:
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    for step in range(2):
        io.save_checkpoint({"step": step}, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="damaged"):
        assert io.load_checkpoint(path) == {"step": 0}
    io.save_checkpoint({"step": 5}, path)
    assert io.load_checkpoint(path) == {"step": 5}
    assert io.load_checkpoint(tmp_path / "previous.ckpt") == {"step": 0}


def test_two_damaged_checkpoints_are_refused(tmp_path) -> None:
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    for step in range(2):
        io.save_checkpoint({"step": step}, path)
    for file in (path, tmp_path / "previous.ckpt"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged.*previous\.ckpt is damaged"):
        io.load_checkpoint(path)


def test_a_save_that_is_due_within_a_batch_is_made() -> None:
    every = Every(10, last=50)
    every.start_batch(8)
    assert every.is_due(11)
    every.start_batch(11)
    assert not every.is_due(14)
    every.start_batch(41)
    assert every.is_due(51)
    assert not Every(0, last=5).is_due(5)


def test_files_of_other_names_are_not_guarded(tmp_path: Path) -> None:
    """Lightning and callbacks of users keep checkpoints of their own beside those of a run."""
    io = SafeCheckpointIO()
    for step, name in ((1, ".temp.ckpt"), (2, "epoch=1.ckpt"), (3, ".temp.ckpt")):
        io.save_checkpoint({"step": step}, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".temp.ckpt", "epoch=1.ckpt"]
    assert io.load_checkpoint(tmp_path / ".temp.ckpt")["step"] == 3
    assert io.load_checkpoint(tmp_path / "epoch=1.ckpt")["step"] == 2
    io.save_checkpoint({"step": print}, tmp_path / "code.ckpt")
    with pytest.raises(CheckpointError, match="Nothing in it was run"):
        io.load_checkpoint(tmp_path / "code.ckpt")
    io.remove_checkpoint(tmp_path / "epoch=1.ckpt")
    assert not (tmp_path / "epoch=1.ckpt").exists()
