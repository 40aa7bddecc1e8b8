"""What can go wrong in training, with messages for people."""

from __future__ import annotations

import signal
from pathlib import Path

from rate.advice import command


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to do."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be loaded, and has no good predecessor."""


class Interrupted(Exception):
    """Training was asked to stop, and stopped.

    Attributes:
        number: The signal. A process that it ends exits with 128 more, by the shells' convention.
        checkpoint: The checkpoint to continue from, or None where there is none yet.
    """

    def __init__(self, number: int, when: str, checkpoint: Path | None, step: int = 0) -> None:
        if checkpoint is None:
            kept = "Nothing was saved yet: the same command begins again."
        else:
            kept = (
                f"The state of step {step} is in {checkpoint}. Continue with: "
                f"{command('train', '--resume', str(checkpoint.parent.parent))}"
            )
        super().__init__(f"Stopped by {signal.Signals(number).name} {when}. {kept}")
        self.number = number
        self.checkpoint = checkpoint
