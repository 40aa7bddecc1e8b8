"""Learning curves of runs, and the loss on held-out steps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rate.errors import ConfigError
from rate.files import load_json
from rate.renamed import current_metrics
from trainers.commands.figures import metric_name, pyplot, save
from trainers.commands.scores import read_table
from trainers.commands.styles import styles
from trainers.statistics import MIDDLES, Scores, Statistic, bootstrap

Table = list[dict[str, Any]]

_METRICS = ("loss", "last_step_accuracy")
_ONLINE, _STEPS = "online/", "online/steps"  # metrics of training in an environment; its steps
_SEED = re.compile(r"-\d+$")  # at the end of the name of a run

_PLACES = {
    "by_position": "step of the episode",
    "by_distance": "steps since the border of a segment",
}


def plot_learning(
    folders: Sequence[Path],
    path: Path,
    metrics: Sequence[str] = (),
    statistic: str | None = None,
) -> None:
    """Plot learning curves of runs, and the loss on held-out steps.

    Top: metrics against optimiser steps (those of training in an environment, `online/...`, against
    its steps), with rings for held-out windows. Bottom, if runs have held-out episodes and no
    metric and statistic is named: the action loss of the last weights on them, by position in the
    episode and by distance from the border of a segment.

    Args:
        folders: The folders of the runs.
        path: The PNG to write.
        metrics: Columns of `metrics.csv`; loss and last-step accuracy if empty.
        statistic: `mean` or `iqm` of the runs named alike but for the seed at the end, a line with
            its 95 % interval as a band; None is a line per run.

    Raises:
        ConfigError: If a folder is not a run, no run has one of the metrics, or the figure cannot
            be written.
    """
    names = list(metrics) or list(_METRICS)
    tables = {
        folder: [*map(current_metrics, read_table(folder / "metrics.csv"))] for folder in folders
    }
    _check_columns(metrics, tables)
    is_whole = not metrics and statistic is None
    held_out = {f: found for f in folders if is_whole and (found := read_held_out(f))}
    size = (2 if held_out else 1, len(names))
    figure, panels = pyplot().subplots(
        *size, figsize=(4.5 * size[1], 3.5 * size[0]), layout="constrained", squeeze=False
    )
    for axes, name in zip(panels[0], names, strict=True):
        if statistic is None:
            _draw_runs(axes, tables, name)
        else:
            _draw_bands(axes, tables, name, MIDDLES[statistic])
    if held_out:
        _draw_held_out(panels[-1], held_out, folders)
        panels[0, 0].set_title("rings: held-out windows", fontsize=8, loc="right")
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_yscale("log" if name.endswith("loss") else "linear")
    panels[0, -1].legend(frameon=False)
    save(figure, path)


def _check_columns(metrics: Sequence[str], tables: dict[Path, Table]) -> None:
    """Check that a run has each metric.

    Raises:
        ConfigError: If none has; the message lists the known ones.
    """
    known = list(dict.fromkeys(name for rows in tables.values() for row in rows for name in row))
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"--metrics has {metric}; the runs have: {', '.join(known)}.")


def _draw_runs(axes: Any, tables: dict[Path, Table], name: str) -> None:
    """Draw a metric, a line per run, and rings for held-out windows."""
    looks = styles(folder.name for folder in tables)
    for folder, rows in tables.items():
        style = looks[folder.name]
        look = {"color": style.colour, "linestyle": style.dash}
        axes.plot(*_points_of(rows, name), label=folder.name, **look)
        rings = _points_of(rows, f"held_out/{name}")
        axes.plot(*rings, color=style.colour, marker="o", fillstyle="none", linestyle="")
    axes.set(xlabel=_step_name(name), ylabel=metric_name(name))


def _draw_bands(axes: Any, tables: dict[Path, Table], name: str, statistic: Statistic) -> None:
    """Draw a metric, a line and a band per run without its seed, over the steps of all seeds."""
    groups: dict[str, list[Table]] = {}
    for folder, rows in tables.items():
        groups.setdefault(_SEED.sub("", folder.name), []).append(rows)
    looks = styles(groups)
    for label, seeds in groups.items():
        points = [each for rows in seeds if (each := _points_of(rows, name))[0]]
        if not points:
            continue
        first, last = max(steps[0] for steps, _ in points), min(steps[-1] for steps, _ in points)
        grid = sorted({s for steps, _ in points for s in steps if first <= s <= last})
        values = np.stack([np.interp(grid, steps, line) for steps, line in points], -1)  # (S, n)
        look = {"color": looks[label].colour, "linestyle": looks[label].dash}
        axes.plot(grid, statistic([values]), label=f"{label} ({len(points)})", **look)
        bands = [bootstrap(Scores([row.tolist()]), statistic) for row in values]
        axes.fill_between(grid, *zip(*bands, strict=True), color=look["color"], alpha=0.15, lw=0)
    axes.set(xlabel=_step_name(name), ylabel=metric_name(name))
    axes.set_title("(seeds), 95 % intervals", fontsize=8, loc="right")


def _draw_held_out(panels: Any, held_out: dict[Path, Any], folders: Sequence[Path]) -> None:
    """Draw the action loss on held-out steps, by position and by distance."""
    looks = styles(folder.name for folder in folders)
    for axes, (kind, place) in zip(panels, _PLACES.items(), strict=True):
        for folder, found in held_out.items():
            style, bins = looks[folder.name], found[kind]
            middles = [(row["from"] + row["to"]) / 2 for row in bins]
            values = [_or_nan(row["action_loss"]) for row in bins]
            look = {"color": style.colour, "linestyle": style.dash}
            axes.plot(middles, values, marker=style.marker, markersize=3, **look)
        axes.set(xlabel=place, ylabel="held-out action loss", yscale="log")


def read_held_out(folder: Path) -> dict[str, Any] | None:
    """Returns the held-out metrics of a run's last weights from `evaluation.json`, or None.

    Raises:
        ConfigError: If the file is damaged.
    """
    path = folder / "evaluation.json"
    if not path.is_file():  # the run has not finished
        return None
    try:
        rows = load_json(path).get("held_out", [])
        return next((row for row in rows if row["which"] == "last"), None)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}).") from error


def _points_of(rows: Table, name: str) -> tuple[list[int], list[float]]:
    """Returns the steps and the values of a column of metrics, without empty cells."""
    step = _STEPS if name.startswith(_ONLINE) else "step"
    known = [(int(float(row[step])), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in known], [value for _, value in known]


def _step_name(name: str) -> str:
    """Returns the label of the steps that a metric is drawn against."""
    return "environment step" if name.startswith(_ONLINE) else "optimiser step"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
