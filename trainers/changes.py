"""Differences between configurations, and which of them are allowed when a run is resumed."""

from __future__ import annotations

from typing import Any

# These may differ between a run and its continuation. They do not change the result of a training
# step, except that `max_steps` sets the length of the learning-rate schedule.
_FREE_SECTIONS = ("logging", "evaluation")
_FREE_SETTINGS = (
    "data.root",
    "data.store",
    "data.workers",
    "env.python",
    "training.checkpoint_every_n_steps",
    "training.data_device",
    "training.log_every_n_steps",
    "training.max_steps",
)
# These may differ as well, but results then agree only up to rounding. Each process draws noise
# (dropout, memory noise) for its own part of a batch.
ROUNDING = (
    "training.accelerator",
    "training.checkpoint_segments",
    "training.compile",
    "training.cuda_graphs",
    "training.devices",
    "training.nodes",
    "training.strategy",
    "training.threads",
)
# Settings that do not affect the scores of a run.
_SAME_RUN = ("data.root", "data.workers", "evaluation.workers", "training.threads")


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ between two nested tables: dotted name to (old, new)."""
    found = {}
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            inner = differences(before, after)
            found.update({f"{name}.{key}": value for key, value in inner.items()})
        elif before != after:
            found[name] = (before, after)
    return found


def may_change(name: str) -> bool:
    """Whether a setting may differ between a run and its continuation."""
    return name.partition(".")[0] in _FREE_SECTIONS or name in _FREE_SETTINGS + ROUNDING


def changes_no_score(name: str) -> bool:
    """Whether a setting does not affect scores."""
    return name.startswith("logging.") or name in _SAME_RUN
