"""Errors of training, with messages for users."""

from __future__ import annotations

import signal
from pathlib import Path

from rate.advice import command


class TrainingError(RuntimeError):
    """Training cannot continue; the message says where it stopped and names the remedy."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written or loaded."""


class Interrupted(Exception):
    """Training was stopped by a signal.

    Attributes:
        number: The signal. The process exits with status `128 + number`, the shells' convention.
        checkpoint: The checkpoint to continue from; None if there is none yet.
    """

    def __init__(self, number: int, when: str, checkpoint: Path | None, step: int = 0) -> None:
        if checkpoint is None:
            advice = "Nothing was saved yet: the same command begins again."
        else:
            advice = (
                f"The state of step {step} is in {checkpoint}. Continue with: "
                f"{command('train', '--resume', str(checkpoint.parent.parent))}"
            )
        super().__init__(f"Stopped by {signal.Signals(number).name} {when}. {advice}")
        self.number = number
        self.checkpoint = checkpoint
