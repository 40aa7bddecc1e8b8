"""Progress callbacks of long-running work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
# The phase of the work, what is done of it, and of how much if that is known.
OnProgress = Callable[[str, int, int | None], None]


def no_progress(phase: str, done: int, total: int | None) -> None:
    """An `OnProgress` that does nothing."""


def with_progress(
    items: Iterable[Item], phase: str, total: int | None, tell: OnProgress
) -> Iterator[Item]:
    """Yields the items; calls `tell` before the first and after each."""
    tell(phase, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        tell(phase, done, total)
