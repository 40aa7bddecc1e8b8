"""Gathers values of all processes of a run, however long the slowest takes.

A collective of the process group of training fails after its time-out, 30 minutes by default. What
may take longer, such as rollouts, is gathered here, in a group without a practical limit. A process
that dies still ends the wait at once, as its connections close.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed as dist

T = TypeVar("T")
_PATIENCE = timedelta(days=365)
_GROUPS: dict[int, Any] = {}  # by the id of the process group of training


def gather(value: T) -> list[T]:
    """Returns the values of all processes in the order of their ranks; `[value]` in one process.

    Args:
        value: Can be pickled. All processes have to call this, in the same order.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [value]
    training = id(dist.group.WORLD)
    if training not in _GROUPS:
        _GROUPS.clear()  # of a run before, whose group is destroyed
        _GROUPS[training] = dist.new_group(backend="gloo", timeout=_PATIENCE)
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value, group=_GROUPS[training])
    return found
