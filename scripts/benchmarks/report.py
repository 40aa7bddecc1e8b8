"""What was measured: on the screen, in files and as figures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from rate.errors import ConfigError
from rate.files import write_atomic, write_json
from scripts.benchmarks.machine import Machine
from scripts.benchmarks.rows import OURS, PRESET, Row
from scripts.benchmarks.training import REFERENCE
from trainers.commands.outputs import check_picture, check_place, read_own_json, refusal
from trainers.commands.plot import pyplot, save
from trainers.commands.styles import COLOURS

TITLES = {
    "step": "Training step, data on the device",
    "sampler": "Sampler: a batch, on the device",
    "fit": "Epochs of training, with logging",
    "rollout": "Rollout, in an environment that costs nothing",
    "simulators": "Rollout, in the simulator",
    "agreement": "Do the fast and the plain path agree?",
    "scale": "Cost against scale, on the T-Maze configuration",
}
RESULTS, FIGURES = "benchmark.json", ("speed.png", "scale.png")
TABLE_COLUMNS = ["device", *(field.name for field in fields(Row)), "command"]
_WIDTH = 170  # characters: narrower tables would hide figures
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows, ours with how many times as fast they are as what they are measured against."""
    speeds: dict[tuple[str, str, str, bool], float] = {}
    for row in rows:
        if row.variant not in (OURS, PRESET) and row.timesteps_per_second:
            key = (row.part, row.configuration, row.model, row.variant == REFERENCE)
            speeds[key] = row.timesteps_per_second

    def ratio(row: Row, reference: bool) -> float | None:
        against = speeds.get((row.part, row.configuration, row.model, reference))
        ours = row.variant in (OURS, PRESET) and row.timesteps_per_second
        return ours / against if ours and against else None

    return [
        replace(row, ratio=ratio(row, False), ratio_to_reference=ratio(row, True)) for row in rows
    ]


def show_rows(rows: Sequence[Row], console: Console) -> None:
    """Print a table for every part; columns that a part has nothing for are left out."""
    wide = Console(width=max(console.width, _WIDTH))
    for part, title in TITLES.items():
        chosen = [row for row in rows if row.part == part]
        if not chosen:
            continue
        table = Table(title=title, title_justify="left", box=box.SIMPLE)
        names = column_names(chosen)
        for name in names:
            side: Literal["left", "right"] = "left" if name in TEXT_COLUMNS else "right"
            table.add_column(name, justify=side, no_wrap=True)
        for row in chosen:
            table.add_row(*(COLUMNS[name](row) for name in names))
        wide.print(table)


def column_names(rows: Sequence[Row]) -> list[str]:
    """The columns that one of the rows has something for."""
    return [name for name, show in COLUMNS.items() if any(show(row) for row in rows)]


def show_skipped(skipped: dict[str, str], console: Console) -> None:
    """Print what was not measured, by the reason."""
    for reason in dict.fromkeys(skipped.values()):
        labels = [label for label, why in skipped.items() if why == reason]
        text = f"Not measured, {reason}: {'; '.join(labels)}."
        console.print(text, highlight=False, markup=False)  # an extra stands in brackets


def show_machine(machine: Machine, console: Console) -> None:
    """Print what the machine can do at best."""
    console.print(
        f"{machine.name}: matrix products at {short(machine.float32)}FLOP/s in float32, "
        f"{short(machine.bfloat16)}FLOP/s in bfloat16; copies at {short(machine.copy)}B/s.",
        highlight=False,
        soft_wrap=True,
    )


def check_outputs(folder: Path, table: Path) -> None:
    """Refuse files that could not be written, or would take another one's place.

    Raises:
        ConfigError: If so.
    """
    read_own_json(folder / RESULTS, "file of measurements", {"command", "machine", "rows"})
    for figure in FIGURES:
        check_picture(folder / figure, ".png")
    check_place(table)
    if table.exists() and table.stat().st_size:
        _check_columns(table)


def _check_columns(table: Path) -> None:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            found = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        found = []
    if found != TABLE_COLUMNS:
        raise refusal(table, "table of measurements with the columns of this version")


def write_results(
    rows: Sequence[Row], skipped: dict[str, str], machine: Machine, command: str, path: Path
) -> None:
    """Write everything as JSON.

    Raises:
        ConfigError: If the file cannot be written.
    """
    measured = [{k: v for k, v in asdict(row).items() if _is_known(v)} for row in rows]
    result = {"command": command, "machine": machine.to_dict(), "rows": measured}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**result, "skipped": skipped})
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def append_table(rows: Sequence[Row], machine: Machine, command: str, path: Path) -> None:
    """Add rows to a CSV table, all or none; it is begun if there is none.

    Raises:
        ConfigError: If there is another table, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, TABLE_COLUMNS, lineterminator="\n")
        if path.exists() and path.stat().st_size:
            _check_columns(path)
            before = path.read_text(encoding="utf-8")
            text.write(before if before.endswith("\n") else f"{before}\n")
        else:
            writer.writeheader()
        for row in rows:
            values = {name: _rounded(value) for name, value in asdict(row).items()}
            writer.writerow({"device": machine.name, **values, "command": command})
        write_atomic(path, text.getvalue())  # whole, whenever it is stopped
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def draw_figures(rows: Sequence[Row], machine: Machine, folder: Path) -> list[Path]:
    """Draw `speed.png` and, of measurements of scale, `scale.png`; returns what was drawn."""
    if find_spec("matplotlib") is None:
        return []
    drawn = []
    parts = [part for part in ("sampler", "step", "fit", "rollout") if _has(rows, part)]
    if parts:
        drawn.append(folder / FIGURES[0])
        _draw_speed(rows, parts, machine, drawn[-1])
    if _has(rows, "scale"):
        drawn.append(folder / FIGURES[1])
        _draw_scale([row for row in rows if row.part == "scale"], machine, drawn[-1])
    return drawn


def _draw_speed(rows: Sequence[Row], parts: list[str], machine: Machine, path: Path) -> None:
    """Timesteps a second: a panel per part, a group of bars per configuration and model.

    A black line is what the published table has.
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
        axes.set(yscale="log", title=TITLES[part], ylabel="timesteps a second")
        axes.title.set_fontsize(9)
        axes.set_ylim(top=4 * axes.get_ylim()[1])  # room for the legend
        axes.legend(fontsize=7, frameon=False)
    figure.suptitle(machine.name, fontsize=9)
    figure.tight_layout()
    save(figure, path)


def _draw_scale(rows: Sequence[Row], machine: Machine, path: Path) -> None:
    """Time and memory of a piece of work against what is varied; dotted: in proportion to it."""
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
        # From zero on, where there is one, and then in powers.
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
            if max(memory) < 2 * min(memory):  # what hardly changes must not look as if it did
                right.set_ylim(min(memory) / 2, 2 * max(memory))
            right.set_ylabel("peak memory, GiB", color=COLOURS[1])
    for axes in list(panels.flat)[len(series) :]:
        axes.set_axis_off()
    figure.suptitle(f"{TITLES['scale']} ({machine.name})", fontsize=9)
    figure.tight_layout()
    save(figure, path)


def short(value: float | None) -> str:
    """Three digits and a unit: 12.3k; nothing for None."""
    if value is None:
        return ""
    for unit, letter in _UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.3g} "


def _has(rows: Sequence[Row], part: str) -> bool:
    return any(row.part == part for row in rows)


def _is_known(value: Any) -> bool:
    """Whether there is a value, and one that JSON has."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}x"


TEXT_COLUMNS = ("configuration", "model", "variant", "precision", "series", "note")
COLUMNS: dict[str, Callable[[Row], str]] = {
    "configuration": lambda row: "" if row.series else row.configuration,
    "model": lambda row: "" if row.series else row.model,
    "variant": lambda row: "" if row.series else row.variant,
    "series": lambda row: row.series or "",
    "value": lambda row: "" if row.value is None else f"{row.value:,.0f}",
    "precision": lambda row: row.precision or "",
    "size": lambda row: str(row.size or ""),
    "processes": lambda row: str(row.workers or ""),
    "ms": lambda row: "" if row.milliseconds is None else f"{row.milliseconds:.4g}",
    "±": lambda row: _share(row.spread),
    "of": lambda row: str(row.repeats or ""),
    "steps/s": lambda row: short(row.per_second).strip(),
    "timesteps/s": lambda row: short(row.timesteps_per_second).strip(),
    "FLOP use": lambda row: _share(row.flop_utilisation),
    "bytes/s": lambda row: short(row.bytes_per_second).strip(),
    "GiB": lambda row: "" if row.peak_memory is None else f"{row.peak_memory:.2f}",
    "params": lambda row: short(row.parameters).strip(),
    "data wait": lambda row: _share(row.data_wait),
    "x baseline": lambda row: _times(row.ratio),
    "x reference": lambda row: _times(row.ratio_to_reference),
    "x published": lambda row: _times(row.ratio_to_published),
    "of published GiB": lambda row: _share(row.memory_to_published),
    "difference": lambda row: "" if row.difference is None else f"{row.difference:.2g}",
    "note": lambda row: row.note,
}
