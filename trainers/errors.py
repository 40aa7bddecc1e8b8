"""What can go wrong in training, with messages for people."""

from __future__ import annotations

import signal
from pathlib import Path


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to do."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be loaded, and has no good predecessor."""


class Interrupted(Exception):
    """Training was asked to stop, and stopped after a whole batch with a checkpoint.

    Attributes:
        exit_code: What the process should exit with, by the shells' convention: 130 after SIGINT
            (Ctrl+C), 143 after SIGTERM.
        checkpoint: The checkpoint to continue from.
    """

    def __init__(self, signal_number: int, step: int, checkpoint: Path) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(
            f"Stopped by {name} after step {step}; the state is in {checkpoint}. "
            f"Continue with --resume {checkpoint.parent.parent}"
        )
        self.exit_code = 128 + signal_number
        self.checkpoint = checkpoint
