"""Figures over seeds and tasks: profiles, ranks, aggregates, and differences from one model.

Source: Agarwal et al. 2021 (arXiv:2108.13264); see `trainers.statistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.commands.figures import metric_name, pyplot, save
from trainers.commands.plot_lengths import draw_lines
from trainers.commands.scores import seed_scores
from trainers.commands.styles import styles
from trainers.commands.tables import common_scores, compared, difference
from trainers.environment import BASELINES
from trainers.statistics import bootstrap, estimate, iqm, mean, median, profile

_THRESHOLDS = 101
_COLUMNS = 4  # of panels
_WIDTH = 0.8  # of the bars of a group
_HATCHES = ("", "//", "..", "xx", "\\\\", "--")

Draw = Callable[[Sequence[dict[str, Any]], str, Path, str], None]
"""Draws the metric of rows into a PNG, of the `last` or the `best` weights."""


def plot_profile(rows: Sequence[dict[str, Any]], metric: str, path: Path, which: str) -> None:
    """Plot performance profiles: the share of seeds and tasks above each score, with intervals.

    Raises:
        ConfigError: If no task is scored for all models.
    """
    scores = common_scores(rows, metric, which)
    values = [value for found in scores.values() for task in found.tasks for value in task]
    thresholds = np.linspace(min(values), max(values), _THRESHOLDS)
    above, looks = profile(thresholds), styles(scores)
    figure, axes = pyplot().subplots(figsize=(7, 4), layout="constrained")
    for model, found in scores.items():
        low, high = bootstrap(found, above)
        share, seeds = above(found.arrays()), max(found.seeds)
        label = model if model in BASELINES else f"{model} ({_seeds(seeds)})"
        look = {"color": looks[model].colour, "linestyle": looks[model].dash}
        axes.step(thresholds, share, where="post", label=label, **look)
        if seeds > 1:
            axes.fill_between(
                thresholds, low, high, step="post", color=looks[model].colour, alpha=0.15, lw=0
            )
    count = len(next(iter(scores.values())).tasks)
    axes.set(xlabel=f"{metric_name(metric)} τ", ylim=(-0.02, 1.02))
    axes.set(ylabel=f"share of seeds above τ, {count} task{'s' * (count > 1)}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    save(figure, path)


def plot_ranks(rows: Sequence[dict[str, Any]], metric: str, path: Path, which: str) -> None:
    """Plot the scores of seeds from the best to the worst, a panel per task, a line per model.

    Lines of similar values are shifted by a few points, so that none hides another.
    """
    scores = seed_scores(rows, metric, which)
    looks = styles(str(row["model"]) for row in rows)
    columns = min(len(scores), _COLUMNS)
    lines = -(-len(scores) // columns)
    figure, panels = pyplot().subplots(
        *(lines, columns), figsize=(3.5 * columns + 2, 3 * lines), layout="constrained",
        squeeze=False, sharey=True,
    )  # fmt: skip
    for axes in panels.flat[len(scores) :]:
        axes.set_visible(False)
    for axes, ((environment, length), models) in zip(panels.flat, scores.items(), strict=False):
        for model in models.keys() & set(BASELINES):
            look = {"color": looks[model].colour, "linestyle": looks[model].dash}
            axes.axhline(next(iter(models[model].values())), label=model, **look)
        ranked = {
            model: dict(enumerate(sorted(seeds.values(), reverse=True), start=1))
            for model, seeds in models.items()
            if model not in BASELINES
        }
        draw_lines(axes, ranked, looks)
        axes.set(xlabel="rank of the seed", title=f"{environment} {length:,}")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0, 0].set(ylabel=metric_name(metric))
    _legend(figure, panels)
    save(figure, path)


def plot_aggregates(rows: Sequence[dict[str, Any]], metric: str, path: Path, which: str) -> None:
    """Plot interquartile mean, median and mean over the tasks of all models, with intervals.

    Raises:
        ConfigError: If no task is scored for all models.
    """
    scores = common_scores(rows, metric, which)
    models, looks = list(scores), styles(scores)
    figure, panels = pyplot().subplots(
        1, 3, figsize=(10, 1 + 0.35 * len(models)), layout="constrained", sharey=True
    )
    for axes, (name, statistic) in zip(
        panels, {"IQM": iqm, "median": median, "mean": mean}.items(), strict=True
    ):
        for place, model in enumerate(models):
            found, colour = estimate(scores[model], statistic), looks[model].colour
            axes.plot([found.low, found.high], [place] * 2, color=colour, alpha=0.4, linewidth=8)
            axes.plot([found.value], [place], color=colour, marker="|", markersize=14)
        axes.set(title=name, xlabel=metric_name(metric), ylim=(len(models) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(models)), models)
    count = len(scores[models[0]].tasks)
    figure.suptitle(f"{count} task{'s' * (count > 1)}, 95 % intervals over seeds", fontsize="small")
    save(figure, path)


def plot_relative(
    rows: Sequence[dict[str, Any]], metric: str, path: Path, which: str, baseline: str
) -> None:
    """Plot the mean differences of models from one, bars with intervals, a group per task.

    A bar is of the seeds that both have; see `trainers.commands.tables.difference`.

    Raises:
        ConfigError: If no task has scores of the baseline and of another model.
    """
    scores = compared(rows, metric, baseline, which)
    tasks = list(dict.fromkeys(task for found in scores.values() for task in found))
    looks, width = styles([baseline, *scores]), _WIDTH / len(scores)
    colours = [looks[model].colour for model in scores]
    # Bars of one colour differ in their hatches.
    hatches = {
        m: _HATCHES[colours[:i].count(colours[i]) % len(_HATCHES)] for i, m in enumerate(scores)
    }
    size = (max(7.0, 1.5 + 0.25 * len(tasks) * (len(scores) + 1)), 4)
    figure, axes = pyplot().subplots(figsize=size, layout="constrained")
    for number, (model, found) in enumerate(scores.items()):
        for task, pair in found.items():
            if (measured := difference({task: pair})) is None:
                continue
            bar, seeds = measured
            place = tasks.index(task) + (number + 0.5) * width - _WIDTH / 2
            look = {"color": looks[model].colour, "hatch": hatches[model], "edgecolor": "white"}
            axes.bar(place, bar.value, 0.9 * width, label=model, **look)
            if max(seeds) > 1:
                axes.plot([place] * 2, [bar.low, bar.high], color="black", linewidth=1)
    names = {environment for environment, _ in tasks}
    labels = [f"{n:,}" if len(names) == 1 else f"{name}\n{n:,}" for name, n in tasks]
    axes.set_xticks(range(len(tasks)), labels)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel=f"{metric_name(metric)}, less that of {baseline}")
    axes.set_title("of the seeds that both have; 95 % intervals", fontsize="small", loc="right")
    _legend(figure, np.array([[axes]]))
    save(figure, path)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def _legend(figure: Any, panels: Any) -> None:
    """Add a legend of the lines and bars of all panels at the right of a figure."""
    found = {
        label: handle
        for axes in panels.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(found.values(), found.keys(), loc="outside right upper", frameon=False)
