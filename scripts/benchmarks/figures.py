"""Figures of the benchmark: speed by configuration, and cost against scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.machine import Machine
from scripts.benchmarks.report import TITLES
from scripts.benchmarks.rows import OURS, Row
from trainers.commands.figures import pyplot, save
from trainers.commands.styles import COLOURS

FIGURES = ("speed.png", "scale.png")


def draw_figures(rows: Sequence[Row], machine: Machine, folder: Path) -> list[Path]:
    """Draws `speed.png` and, of measurements of scale, `scale.png`; returns the paths."""
    drawn = []
    measured = {row.part for row in rows}
    parts = [part for part in ("sampler", "step", "fit", "rollout") if part in measured]
    if parts:
        drawn.append(folder / FIGURES[0])
        _draw_speed(rows, parts, machine, drawn[-1])
    if "scale" in measured:
        drawn.append(folder / FIGURES[1])
        _draw_scale([row for row in rows if row.part == "scale"], machine, drawn[-1])
    return drawn


def _draw_speed(rows: Sequence[Row], parts: Sequence[str], machine: Machine, path: Path) -> None:
    """Timesteps per second: a panel for each part, bars for each configuration and model.

    A black line is the published measurement.
    """
    plt = pyplot()
    width = 4.5 * len(parts)
    figure, panels = plt.subplots(1, len(parts), figsize=(width, 4.5), squeeze=False)
    for axes, part in zip(panels[0], parts, strict=True):
        chosen = [row for row in rows if row.part == part]
        groups = list(dict.fromkeys((row.configuration, row.model) for row in chosen))
        variants = sorted({row.variant for row in chosen}, key=lambda name: name == OURS)
        for index, variant in enumerate(variants):
            of_variant = [row for row in chosen if row.variant == variant]
            at = [groups.index((row.configuration, row.model)) for row in of_variant]
            size = 0.8 / len(variants)
            axes.bar(
                [place + (index + 0.5) * size - 0.4 for place in at],
                [row.timesteps_per_second for row in of_variant],
                size,
                label=variant,
                color=COLOURS[0] if variant == OURS else COLOURS[index + 1],
            )
        for row in chosen:
            if row.variant == OURS and row.ratio_to_published and row.timesteps_per_second:
                place = groups.index((row.configuration, row.model))
                published = row.timesteps_per_second / row.ratio_to_published
                axes.hlines(published, place - 0.4, place + 0.4, color="black")
        names = ["\n".join(group) for group in groups]
        axes.set_xticks(range(len(groups)), names, fontsize=7, rotation=45)
        axes.set(yscale="log", title=TITLES[part], ylabel="timesteps per second")
        axes.title.set_fontsize(9)
        axes.set_ylim(top=4 * axes.get_ylim()[1])  # room for the legend
        axes.legend(fontsize=7, frameon=False)
    figure.suptitle(machine.name, fontsize=9)
    figure.tight_layout()
    save(figure, path)


def _draw_scale(rows: Sequence[Row], machine: Machine, path: Path) -> None:
    """Time and peak memory against the value that is varied; dotted: in proportion to it."""
    plt = pyplot()
    series = list(dict.fromkeys(str(row.series) for row in rows))
    columns = min(4, len(series))
    lines = math.ceil(len(series) / columns)
    figure, panels = plt.subplots(lines, columns, figsize=(4 * columns, 3 * lines), squeeze=False)
    for axes, name in zip(panels.flat, series, strict=False):
        chosen = [row for row in rows if row.series == name]
        values = [row.value or 0.0 for row in chosen]
        times = [row.milliseconds or math.nan for row in chosen]
        axes.plot(values, times, "o-", color=COLOURS[0], label="time")
        proportion = [times[-1] * value / values[-1] for value in values if value]
        axes.plot([value for value in values if value], proportion, ":", color="grey")
        # A logarithmic axis that includes zero.
        smallest = min(value for value in values if value) if any(values) else 1.0
        axes.set_xscale("symlog", linthresh=smallest)
        axes.set_xticks(values, [f"{value:,.0f}" for value in values], fontsize=7)
        axes.minorticks_off()
        axes.set(yscale="log", xlabel=name.replace("_", " "), ylabel="ms")
        memory = [row.peak_memory for row in chosen if row.peak_memory]
        if len(memory) == len(chosen):
            right = axes.twinx()
            right.plot(values, memory, "s--", color=COLOURS[1], label="memory")
            right.set_yscale("log")
            if max(memory) < 2 * min(memory):  # a narrow range would exaggerate small changes
                right.set_ylim(min(memory) / 2, 2 * max(memory))
            right.set_ylabel("peak memory, GiB", color=COLOURS[1])
    for axes in list(panels.flat)[len(series) :]:
        axes.set_axis_off()
    figure.suptitle(f"{TITLES['scale']} ({machine.name})", fontsize=9)
    figure.tight_layout()
    save(figure, path)
