"""Checkpoints of the training state that survive crashes, full disks and flipped bits."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from rate.advice import command
from rate.errors import UserError
from rate.files import atomic_path, draft_of, file_sha256, sync, write_atomic
from trainers.callbacks.schedule import IntervalCallback
from trainers.errors import CheckpointError, Interrupted, TrainingError
from trainers.loggers import rewind, save_durably
from trainers.stopping import StopRequest

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically with their SHA-256, and keeps the previous checkpoint.

    Reading verifies the digest and unpickles only plain types and tensors, so that untrusted files
    cannot run code. Files with other names are written and read as Lightning does, but without
    executing code either.
    """

    def __init__(self) -> None:
        self._damaged: Path | None = None  # must not replace a good previous one

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: If it cannot be written; the previous one is kept.
        """
        path = Path(path)
        if path.name != LAST:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            self._write(checkpoint, path)
        except (OSError, RuntimeError) as error:
            # On a full disk torch raises an error about an unexpected position.
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            advice = "The checkpoint before is still there. " if path.exists() else ""
            raise CheckpointError(
                f"{path} cannot be written ({reason}). {advice}Make room, then continue with: "
                f"{command('train', '--resume', str(path.parent.parent))}"
            ) from error
        self._damaged = None

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Replace `last.ckpt` so that a crash at any point leaves a verifiable checkpoint.

        The digest is renamed before its file. Until the file is renamed, `last.ckpt` is still the
        previous checkpoint, which `previous.ckpt` also refers to, with its own digest.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        digest_file = _digest_file(path)
        with atomic_path(path) as draft:
            with draft.open("xb") as file:
                torch.save(checkpoint, file)
            sync(draft)  # before any other file changes
            digest = file_sha256(draft)
            previous = path.with_name(PREVIOUS)
            is_linked = path.exists() and previous.exists() and path.samefile(previous)
            if path != self._damaged and path.exists() and digest_file.exists() and not is_linked:
                known = digest_file.read_text(encoding="utf-8").replace(path.name, previous.name)
                write_atomic(_digest_file(previous), known)
                _keep_as(path, previous)
            write_atomic(digest_file, f"{digest}  {path.name}\n")

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Returns a checkpoint; if it is damaged, warns and returns the previous one.

        Raises:
            CheckpointError: If neither can be read, or a file contains code.
        """
        path = Path(path)
        if path.name not in (LAST, PREVIOUS):
            return _load(path)
        problems: list[str] = []
        for candidate in (path, path.with_name(PREVIOUS)):
            problem = _damage(candidate)
            if problem is None:
                if problems:
                    self._damaged = path
                    warnings.warn(
                        f"{problems[0]} Going on from {candidate}, the checkpoint before.",
                        stacklevel=2,
                    )
                return _load(candidate)
            problems.append(problem)
        raise CheckpointError(" ".join(problems) + " Start the run again under another name.")

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        for file in (Path(path), _digest_file(Path(path))):
            file.unlink(missing_ok=True)


def find_checkpoint(folder: Path) -> Path | None:
    """Returns the checkpoint in a folder to resume from, even if damaged; None if there is none."""
    found = any((folder / name).exists() for name in (LAST, PREVIOUS))
    return folder / LAST if found else None


def _keep_as(path: Path, previous: Path) -> None:
    """Hard-link a file under a second name; rename it if the file system has no hard links."""
    link = draft_of(previous)
    try:
        link.hardlink_to(path)
        link.replace(previous)
    except OSError:
        path.replace(previous)
    finally:
        link.unlink(missing_ok=True)  # renaming onto a hard link of the same file does nothing


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _damage(path: Path) -> str | None:
    """Returns the defect of a checkpoint file, or None.

    Either digest is accepted: after a crash between the two renames of a save, a checkpoint has its
    new name while its digest still has the old one.
    """
    if not path.is_file():
        return f"{path} is missing."
    digests = set()
    for name in (LAST, PREVIOUS):
        try:
            digests.add(_digest_file(path.with_name(name)).read_text(encoding="utf-8").split()[0])
        except (OSError, IndexError, UnicodeDecodeError):
            continue
    if not digests:
        return f"{path} cannot be trusted: its digest {_digest_file(path).name} is missing."
    if file_sha256(path) not in digests:
        return f"{path} is damaged: its SHA-256 is not the one in {_digest_file(path).name}."
    return None


def _load(path: Path) -> dict[str, Any]:
    refused = (
        f"{path} was refused, for it holds more than tensors and plain values, or is no "
        "checkpoint. Nothing in it was run."
    )
    try:
        _check_size(path)
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the file makes it raise
        first = next(iter(str(error).splitlines()), "")
        raise CheckpointError(f"{refused} ({type(error).__name__}: {first})") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{refused} (it is a {type(checkpoint).__name__})")
    return dict(checkpoint)


def _check_size(path: Path) -> None:
    """Refuse an archive of compressed parts: torch writes none, and they may fill the memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(part.file_size > part.compress_size for part in archive.infolist()):
                raise ValueError("its parts are compressed")


class SafeCheckpoint(IntervalCallback, Checkpoint):
    """Saves the training state every `every` steps, at the end, and on a request to stop.

    On a request to stop, the current step is completed, the state saved and `Interrupted` raised.

    Args:
        folder: The folder of `last.ckpt` and `previous.ckpt`.
        every: Optimiser steps between two checkpoints.
        max_steps: Optimiser steps of training; the last step is saved too.
        stop: The request to stop.

    Attributes:
        last_saved: The newest checkpoint, or None.
        last_step: Optimiser step of the newest checkpoint.
    """

    def __init__(
        self, folder: Path, every: int, max_steps: int, stop: StopRequest | None = None
    ) -> None:
        super().__init__(every, max_steps)
        self.path = folder / LAST
        self.last_saved: Path | None = None
        self.last_step = 0
        self.stop = stop or StopRequest()
        self._has_begun = False

    @contextmanager
    def restoring(self, checkpoint: Path | None) -> Iterator[None]:
        """Turns an error before the first step into a `CheckpointError`, if there is a checkpoint.

        What a wrong checkpoint makes Lightning and torch raise is not enumerated.
        """
        try:
            yield
        except (UserError, TrainingError, Interrupted):
            raise
        except Exception as error:
            if checkpoint is None or self._has_begun:
                raise
            first = next(iter(str(error).splitlines()), "")
            raise CheckpointError(
                f"{checkpoint} cannot be continued from, as it is not of this run or was altered "
                f"({type(error).__name__}: {first}). Start the run again under another name."
            ) from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.defer()
        if self._should_stop(trainer):
            raise self.interrupted("before a step was taken")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._has_begun = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        should_stop = self._should_stop(trainer)
        if should_stop or self._schedule.is_due(trainer.global_step):
            with self.stop.saving():
                self.save(trainer)
        if should_stop:
            raise self.interrupted(f"after step {trainer.global_step}")

    def save(self, trainer: Trainer) -> None:
        """Save the metrics durably, then the state.

        A resume drops metrics after the checkpoint; missing ones could not be recovered.
        """
        save_durably(trainer.loggers)
        trainer.save_checkpoint(self.path)
        self.last_saved, self.last_step = self.path, trainer.global_step

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Discard the metrics of steps after the checkpoint, which are repeated."""
        self.last_saved, self.last_step = self.path, checkpoint["global_step"]
        rewind(trainer.loggers, checkpoint["global_step"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.stop.release()

    def interrupted(self, when: str) -> Interrupted:
        """Returns the exception for the signal; its message names the checkpoint to resume from."""
        return Interrupted(self.stop.number or SIGTERM, when, self.last_saved, self.last_step)

    def _should_stop(self, trainer: Trainer) -> bool:
        """Whether any process has a request to stop; the result is the same on all processes."""
        noted = self.stop.number is not None
        return bool(trainer.strategy.reduce_boolean_decision(noted, all=False))
