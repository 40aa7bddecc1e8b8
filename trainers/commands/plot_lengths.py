"""Figures of scores against the length of episodes, or against another number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.cli import parse
from trainers.commands.figures import metric_name, pyplot, save
from trainers.commands.scores import by_environment, by_length, main_metric
from trainers.commands.styles import Style, styles
from trainers.preset_files import has_own_presets
from trainers.registry import length_name, success_without_memory
from trainers.statistics import MIDDLES, Scores, bootstrap, iqm

_ANYTHING = ("--data.random_policy=true",)  # accepted where an environment has no expert
_OTHERS = "changed environments"
_LIKE, _APART = 0.02, 2.0  # distance of similar values, share of the range; shift in points


def plot_scores(
    rows: Sequence[dict[str, Any]],
    path: Path,
    trained_length: int | None = None,
    statistic: str = "mean",
    against: str | None = None,
    metric: str | None = None,
    which: str = "last",
) -> None:
    """Plot scores against length, a panel per environment.

    Environments of a single length share a panel, side by side. A line is a model, and a dot a
    seed.

    Lines of similar values are shifted by a few points, so that none hides another.

    Args:
        rows: Scores, as `read_scores` returns them.
        path: The PNG to write.
        trained_length: The greatest length in training, drawn as a dotted line; None is that of
            the rows, or of the preset of their environment.
        statistic: Of the seeds: `mean`, or `iqm` with its 95 % interval as a band.
        against: The label of the axis if the rows are those of `by_value`; None for lengths.
        metric: The column to plot; None is success, or return.
        which: The weights, `last` or `best`.

    Raises:
        ConfigError: If the figure cannot be written.
    """
    parts, places = (by_environment(rows), []) if against else _panels(rows)
    size = (7 + 4.5 * (len(parts) - 1), 4)
    figure, panels = pyplot().subplots(
        1, len(parts), figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    looks = styles(str(row["model"]) for row in rows)
    for axes, (environment, part) in zip(panels[0], parts.items(), strict=True):
        shown = metric or main_metric(part)
        scores = {model: by_length(part, shown, model, which) for model in looks}
        _draw_scores(axes, scores, looks, statistic)
        if shown == "success":
            _draw_success(axes, environment.split(" ")[0] if against else environment)
        axes.set_title(environment if len(parts) > 1 else "")
        if environment == _OTHERS:
            axes.set(xticks=range(len(places)), xlim=(-0.5, len(places) - 0.5))
            axes.set_xticklabels(places)
            continue
        if against:
            axes.set(xlabel=against)
            continue
        for length in [trained_length] if trained_length else trained_lengths(part):
            axes.axvline(length, color="black", linestyle=":", linewidth=1)
            place = ("data", "axes fraction")
            axes.annotate("in training", (length, 0.04), xycoords=place, rotation=90, fontsize=8)
        axes.set(xscale="log", xlabel=length_name(environment.split(" ")[0]))
    name, weights = (
        metric_name(metric or main_metric(rows)),
        "" if which == "last" else " of the best weights",
    )
    panels[0, 0].set(ylabel=name)
    title = f"{name.capitalize()}{weights} on held-out seeds, in rollouts"
    figure.suptitle(title, fontsize="large")
    lines = {
        line.get_label(): line for axes in panels[0] for line in axes.get_legend_handles_labels()[0]
    }
    panels[0, -1].legend(
        lines.values(), lines.keys(), loc="lower left", bbox_to_anchor=(1, 0), frameon=False
    )
    save(figure, path)


def _panels(
    rows: Sequence[dict[str, Any]],
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Returns the rows of each panel by its title, and the environments of the panel `_OTHERS`.

    The rows of that panel have the place of their environment for a length.
    """
    parts = by_environment(rows)
    single = [name for name, part in parts.items() if len({row["length"] for row in part}) == 1]
    if len(single) < 2 or len(single) == len(parts):
        return parts, []
    panels = {name: part for name, part in parts.items() if name not in single}
    panels[_OTHERS] = [
        {**row, "length": place} for place, name in enumerate(single) for row in parts[name]
    ]
    return panels, [name.partition(" ")[2] or name for name in single]


def _draw_scores(
    axes: Any, scores: dict[str, dict[int, list[float]]], looks: dict[str, Style], statistic: str
) -> None:
    """Draw the scores of one environment: a line per model, and the seeds as dots."""
    middle = MIDDLES[statistic]
    means = {
        model: {length: float(middle([np.asarray(found[length])])) for length in sorted(found)}
        for model, found in scores.items()
        if found
    }
    places = draw_lines(axes, means, looks)
    for model, found in means.items():
        look = {"color": looks[model].colour, "transform": places[model]}
        if statistic == "iqm":
            bands = [bootstrap(Scores([scores[model][length]]), iqm) for length in found]
            axes.fill_between(list(found), *zip(*bands, strict=True), alpha=0.12, lw=0, **look)
        for length, seeds in scores[model].items():
            axes.plot([length] * len(seeds), seeds, linestyle="", marker=".", alpha=0.3, **look)


def draw_lines(
    axes: Any, lines: dict[str, dict[int, float]], looks: dict[str, Style]
) -> dict[str, Any]:
    """Draw a line per model, from places to values, and shift lines of similar values.

    Returns:
        The transform of each model's data to the figure.
    """
    shifts, places = _shifts(lines), {}
    for model, found in lines.items():
        style = looks[model]
        places[model] = axes.transData + _moved(axes.figure, shifts.get(model, 0.0))
        look = {"color": style.colour, "linestyle": style.dash, "marker": style.marker}
        axes.plot(
            *(list(found), list(found.values())), linewidth=1.6, markersize=4.5, label=model,
            transform=places[model], **look,
        )  # fmt: skip
    axes.update_datalim([(x, y) for found in lines.values() for x, y in found.items()])
    axes.autoscale_view()
    if shifts:
        note = f"lines of like values are moved apart, by at most {max(shifts.values()):.0f} points"
        axes.annotate(note, (0.99, 0.01), xycoords="axes fraction", fontsize=6, ha="right")
    return places


def _draw_success(axes: Any, environment: str) -> None:
    """Set the range of success rates, and draw that of the best policy without memory."""
    axes.set(ylim=(-0.06, 1.08))
    known = success_without_memory(environment)
    if known is not None:
        axes.axhline(known, color="black", linewidth=0.5)
        look = {"xycoords": ("axes fraction", "data"), "fontsize": 8, "ha": "right"}
        axes.annotate("best without memory", (1, known + 0.005), **look)


def trained_lengths(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Returns the distinct `trained_length`s of rows, up to the longest length in them.

    If no row has one, as in tables of earlier versions, the length of the environment's preset is
    used, if it has presets.
    """
    trained = {row["trained_length"] for row in rows if row.get("trained_length")}
    if not trained:
        environment = str(rows[0].get("environment") or "tmaze")
        if not has_own_presets(environment):
            return []
        trained = {parse(environment, ["--model_mode=rate", *_ANYTHING]).config.max_length}
    longest = max(row["length"] for row in rows)
    return sorted(int(length) for length in trained if length <= longest)


def _shifts(means: dict[str, dict[int, float]]) -> dict[str, float]:
    """Returns the shifts in points, by model, of lines with similar values at a common length."""
    all_values = [value for line in means.values() for value in line.values()]
    like = _LIKE * (max(all_values) - min(all_values)) if all_values else 0.0
    hidden = [
        model
        for model, line in means.items()
        if any(
            abs(line[length] - other[length]) <= like
            for name, other in means.items()
            if name != model
            for length in line.keys() & other.keys()
        )
    ]
    return {model: ((len(hidden) - 1) / 2 - index) * _APART for index, model in enumerate(hidden)}


def _moved(figure: Any, shift: float) -> Any:
    """Returns the transform that shifts a line up by `shift` points and right by 0.7 of that."""
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(0.7 * shift / 72, shift / 72, figure.dpi_scale_trans)
