"""Checkpoint files under a full disk and after damage, and when they are due."""

from __future__ import annotations

import errno

import pytest
import torch

from trainers.callbacks.checkpoint import SafeCheckpointIO
from trainers.callbacks.schedule import Every
from trainers.errors import CheckpointError


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch) -> None:
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


def test_a_full_disk_is_named_where_torch_speaks_of_positions(tmp_path, monkeypatch) -> None:
    def full(content, file) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"\(\[Errno \d+\] No space left on device\)\. Make"):
        SafeCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_before_is_kept(tmp_path) -> None:
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


def test_with_both_damaged_training_does_not_go_on(tmp_path) -> None:
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    for step in range(2):
        io.save_checkpoint({"step": step}, path)
    for file in (path, tmp_path / "previous.ckpt"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged.*previous\.ckpt is damaged"):
        io.load_checkpoint(path)


def test_a_batch_may_leap_over_what_is_due() -> None:
    every = Every(10, last=50)
    every.start_batch(8)
    assert every.is_due(11)
    every.start_batch(11)
    assert not every.is_due(14)
    every.start_batch(41)
    assert every.is_due(51)
    assert not Every(0, last=5).is_due(5)
