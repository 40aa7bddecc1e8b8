"""The table of a soak (`scripts/soak.py`): its verdict by a robust slope, and its figure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rate.files import write_atomic
from trainers.commands.figures import pyplot, save
from trainers.commands.styles import COLOURS

MEASURES = {
    "resident_mb": "memory (MB)",
    "shared_mb": "shared memory (MB)",
    "descriptors": "open files",
    "threads": "threads",
    "processes": "processes",
}
WARM_UP = 0.25  # share of the time that is left out: imports, caches, first evaluations
TOLERANCE = 0.01  # of the median: growth over the rest of the time that counts as flat


def slope(seconds: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Returns the change per hour: the median slope over all pairs of samples (Sen 1968)."""
    first, second = np.triu_indices(len(values), 1)
    return float(
        np.median((values[second] - values[first]) / (seconds[second] - seconds[first])) * 3600
    )


def verdict(rows: Sequence[dict[str, Any]], measure: str) -> tuple[bool, str]:
    """Returns whether a measure grows, and the numbers for it.

    It grows if the robust slope, over the time after the warm-up, adds more than `TOLERANCE` of the
    median, and more than one.
    """
    seconds = np.array([float(row["seconds"]) for row in rows])
    values = np.array([float(row[measure]) for row in rows])
    warm = seconds >= WARM_UP * seconds[-1]
    seconds, values = seconds[warm], values[warm]
    if len(values) < 3:
        return False, "too few samples"
    middle, per_hour = float(np.median(values)), slope(seconds, values)
    added = per_hour * float(seconds[-1] - seconds[0]) / 3600
    grows = added > max(TOLERANCE * middle, 1.0)
    return grows, f"median {middle:,.1f}, {per_hour:+,.1f} an hour, {added:+,.1f} while it ran"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw every measure over the time, a line for each part."""
    names = list(dict.fromkeys(row["part"] for row in rows))
    figure, axes = pyplot().subplots(
        len(MEASURES), 1, figsize=(7, 8), sharex=True, layout="constrained"
    )
    for axis, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        for name, colour in zip(names, COLOURS, strict=False):
            own = [row for row in rows if row["part"] == name]
            minutes = [float(row["seconds"]) / 60 for row in own]
            axis.plot(minutes, [float(row[measure]) for row in own], color=colour, label=name)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    axes[-1].set_xlabel("minutes")
    save(figure, path)


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(["part", "seconds", *MEASURES])]
    lines += [
        ",".join([row["part"], f"{row['seconds']:g}", *(f"{row[name]:.1f}" for name in MEASURES)])
        for row in rows
    ]
    write_atomic(path, "\n".join(lines) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a table that `write` has written."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
