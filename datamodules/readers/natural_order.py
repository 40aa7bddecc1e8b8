"""Natural sort order: numbers in names are compared as numbers."""

from __future__ import annotations

import re


def natural_key(name: str) -> list[tuple[int, str]]:
    """Returns a sort key by which `part-10` comes after `part-9`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
