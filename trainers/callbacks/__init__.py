"""Callbacks of a training run."""

from __future__ import annotations

from trainers.callbacks.checkpoint import SafeCheckpoint, SafeCheckpointIO
from trainers.callbacks.curriculum import Curriculum
from trainers.callbacks.evaluation import SelectionRollouts
from trainers.callbacks.held_out import HeldOutMetrics
from trainers.callbacks.online import OnlineMetrics
from trainers.callbacks.progress import Progress, Report, Reporter, preparing
from trainers.callbacks.throughput import Throughput

__all__ = [
    "Curriculum",
    "HeldOutMetrics",
    "OnlineMetrics",
    "Progress",
    "Report",
    "Reporter",
    "SafeCheckpoint",
    "SafeCheckpointIO",
    "SelectionRollouts",
    "Throughput",
    "preparing",
]
