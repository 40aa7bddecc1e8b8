"""The CSV table beside a collected store: seed, length, return and outcome of each episode."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np

from datamodules.episodes import DatasetError, Episode
from rate.files import atomic_path

_ROWS = "episodes.jsonl"  # in the directory of an unfinished store


class EpisodeTable:
    """The rows of the table of a store that is being written, kept in the store's directory.

    No row stays in memory: a collection may have millions.

    Args:
        directory: The directory of the unfinished store.
        rows: The number of existing rows to keep; later ones are removed.

    Raises:
        DatasetError: If there are fewer rows.
    """

    def __init__(self, directory: Path, rows: int) -> None:
        self._path = directory / _ROWS
        self._columns: dict[str, None] = {}  # in the order in which they were first there
        self._file = self._path.open("r+b" if rows else "wb")
        try:
            for _ in range(rows):
                self._columns |= dict.fromkeys(json.loads(self._file.readline()))
        except (ValueError, TypeError):
            self._file.close()
            raise DatasetError(
                f"{self._path}: damaged, there are fewer than the {rows} rows that were written; "
                "delete its folder and begin anew"
            ) from None
        self._file.truncate(self._file.tell())

    def append(self, episode: Episode) -> None:
        """Add the row of an episode."""
        row = {
            "seed": episode.seed,
            "length": len(episode),
            "return": float(np.sum(episode.rewards, dtype=np.float64)),
            "terminated": int(episode.terminated),
            "truncated": int(episode.truncated),
            **episode.outcome,
        }
        self._columns |= dict.fromkeys(row)
        self._file.write(json.dumps(row).encode() + b"\n")

    def sync(self) -> None:
        """Flush the rows to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self, path: Path) -> None:
        """Write the table to `path` as CSV, and remove the rows from the store's directory."""
        self.close()
        with (
            atomic_path(path) as draft,
            draft.open("w", encoding="utf-8", newline="") as table,
            self._path.open("rb") as rows,
        ):
            writer = csv.DictWriter(table, list(self._columns))
            writer.writeheader()
            writer.writerows(map(json.loads, rows))
        self._path.unlink()

    def close(self) -> None:
        """Close the file of the rows."""
        self._file.close()


def table_path(store: Path) -> Path:
    """Returns the path of a store's table of episodes."""
    return store.with_name(f"{store.name}.csv")


def summarise(store: Path) -> dict[str, tuple[float, float, float]]:
    """Returns statistics of the episodes of a collected store.

    Returns:
        Mean, minimum and maximum over episodes, by column: length, return and each outcome.

    Raises:
        DatasetError: If the store's table is missing or damaged.
    """
    path = table_path(store)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {
            name: [float(row[name]) for row in rows if row[name]]
            for name in rows[0]
            if name != "seed"
        }
        return {name: (float(np.mean(c)), min(c), max(c)) for name, c in columns.items() if c}
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: the table of the episodes cannot be read ({error})") from error
