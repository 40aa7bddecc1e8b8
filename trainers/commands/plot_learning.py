"""Learning curves of runs, and the loss on held-out steps."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.renamed import current_metrics
from trainers.commands.figures import pyplot, save
from trainers.commands.scores import read_table
from trainers.commands.styles import styles

_PLACES = {
    "by_position": "step of the episode",
    "by_distance": "steps since the border of a segment",
}


def plot_learning(folders: Sequence[Path], path: Path) -> None:
    """Plot learning curves, a line per run, and the loss on held-out steps.

    Top: loss and last-step accuracy against optimiser steps, with rings for held-out windows.
    Bottom, if runs have held-out episodes: the action loss of the last weights on them, by position
    in the episode and by distance from the border of a segment.

    Args:
        folders: The folders of the runs.
        path: The PNG to write.

    Raises:
        ConfigError: If a folder is not a run, or the figure cannot be written.
    """
    plt = pyplot()
    held_out = {folder: found for folder in folders if (found := read_held_out(folder))}
    size = (2, 2) if held_out else (1, 2)
    figure, panels = plt.subplots(
        *size, figsize=(9, 3.5 * size[0]), layout="constrained", squeeze=False
    )
    looks = styles(folder.name for folder in folders)
    for folder in folders:
        rows, style = read_table(folder / "metrics.csv"), looks[folder.name]
        rows = [current_metrics(row) for row in rows]
        look = {"color": style.colour, "linestyle": style.dash}
        for axes, name in zip(panels[0], ("loss", "last_step_accuracy"), strict=True):
            axes.plot(*_points_of(rows, name), label=folder.name, **look)
            rings = _points_of(rows, f"held_out/{name}")
            axes.plot(*rings, color=style.colour, marker="o", fillstyle="none", linestyle="")
            axes.set(xlabel="optimiser step", ylabel=name.replace("_", " "))
        for axes, (kind, place) in zip(panels[-1], _PLACES.items(), strict=True):
            if folder not in held_out:
                continue
            bins = held_out[folder][kind]
            middles = [(row["from"] + row["to"]) / 2 for row in bins]
            values = [_or_nan(row["action_loss"]) for row in bins]
            axes.plot(middles, values, marker=style.marker, markersize=3, **look)
            axes.set(xlabel=place, ylabel="held-out action loss", yscale="log")
    panels[0, 0].set_yscale("log")
    panels[0, 1].legend(frameon=False)
    if held_out:
        panels[0, 0].set_title("rings: held-out windows", fontsize=8, loc="right")
    save(figure, path)


def read_held_out(folder: Path) -> dict[str, Any] | None:
    """Returns the held-out metrics of a run's last weights from `evaluation.json`, or None.

    Raises:
        ConfigError: If the file is damaged.
    """
    path = folder / "evaluation.json"
    if not path.is_file():  # the run has not finished
        return None
    try:
        rows = json.loads(path.read_text(encoding="utf-8")).get("held_out", [])
        return next((row for row in rows if row["which"] == "last"), None)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}).") from error


def _points_of(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Returns the steps and the values of a column of metrics, without empty cells."""
    known = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in known], [value for _, value in known]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
