"""A data format as a user writes one: found by its import path, or by a package's entry point."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datamodules.formats import Format
from datamodules.options import Options
from datamodules.readers.named import open_episodes
from datamodules.source import Source


def read(path: Path, start: int) -> Iterator[dict[str, Any]]:
    """Yields the episodes from number `start` on, one in memory at a time."""
    with path.open(encoding="utf-8") as file:
        for line in islice(file, start, None):
            log = json.loads(line)
            yield {"observations": log["obs"], "actions": log["act"], "rewards": log["rew"]}


def matches(path: Path) -> bool:
    """Whether a path is of this format, at a glance: a damaged file still has a format."""
    return path.suffix == ".jsonl"


def open_logs(path: Path, options: Options) -> Source:
    """Returns a file as a source: its spaces, and how to read its episodes."""
    return open_episodes("logs", path, (path,), partial(read, path), options)


FORMAT = Format("logs", "a log with an episode in each line (.jsonl)", matches, open_logs)
