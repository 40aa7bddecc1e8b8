"""Gathers values of all processes of a run, however long the slowest takes.

A collective of the process group of training fails after its time-out, 30 minutes by default. What
may take longer, such as rollouts, is gathered here, in a group without a practical limit. A process
that dies still ends the wait at once, as its connections close.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed as dist

from trainers.errors import TrainingError

T = TypeVar("T")
_PATIENCE = timedelta(days=365)
_GROUPS: dict[int, Any] = {}  # by the id of the process group of training


@contextmanager
def explain_lost_processes() -> Iterator[None]:
    """Context in which the failure of a collective is a `TrainingError`: a process has ended."""
    try:
        yield
    except RuntimeError as error:
        kinds = tuple(filter(None, [getattr(dist, "DistError", None)]))
        is_lost = isinstance(error, kinds) or "gloo" in str(error)
        if isinstance(error, TrainingError) or not (is_lost and dist.is_initialized()):
            raise
        raise TrainingError(
            f"Process {dist.get_rank()} of {dist.get_world_size()} ends, as another process of the "
            "run has ended or cannot be reached. That one tells why; the same command with "
            "--resume auto continues the run."
        ) from error


def gather(value: T) -> list[T]:
    """Returns the values of all processes in the order of their ranks; `[value]` in one process.

    Args:
        value: Can be pickled. All processes have to call this, in the same order.

    Raises:
        TrainingError: If another process has ended.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [value]
    training = id(dist.group.WORLD)
    if training not in _GROUPS:
        _GROUPS.clear()  # of a run before, whose group is destroyed
        _GROUPS[training] = dist.new_group(backend="gloo", timeout=_PATIENCE)
    found: list[Any] = [None] * dist.get_world_size()
    with explain_lost_processes():
        dist.all_gather_object(found, value, group=_GROUPS[training])
    return found
