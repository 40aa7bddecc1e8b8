"""Parts of messages to users."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(name: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.5) -> str:
    """Returns ` Did you mean ...?` with the closest known name; empty if none is close.

    Args:
        name: The unknown name.
        known: The known names.
        prefix: Stands before the known name.
        cutoff: Least similarity, in [0, 1]; see `difflib.get_close_matches`.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {prefix}{close[0]}?" if close else ""


def first_of(items: Sequence[str], most: int) -> str:
    """Returns the first `most` items and the number of the others: `a, b and 3 more`."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")
