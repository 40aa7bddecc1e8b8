"""Ratios of the benchmark's rows, their tables on the screen, and their file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from rate.files import write_json
from scripts.benchmarks.machine import Machine
from scripts.benchmarks.rows import OURS, PRESET, Row
from scripts.benchmarks.timing import quartiles
from scripts.benchmarks.training import REFERENCE
from trainers.commands.outputs import output_errors

TITLES = {
    "step": "Training step, data on the device",
    "objectives": "An update of each learning rule, and its speed relative to behaviour cloning",
    "sampler": "Sampler: a batch, on the device",
    "replay": "Replay: a batch of unrolls, against a Python list of episodes",
    "fit": "Epochs of training, with logging",
    "rollout": "Rollout, in an environment that costs nothing",
    "collector": "Collector of training in an environment, an unroll at a time",
    "simulators": "Rollout, in the simulator",
    "agreement": "Do the fast and the plain path agree?",
    "scale": "Cost against scale, on the T-Maze configuration",
}
RESULTS = "benchmark.json"
_WIDTH = 190  # characters; narrower tables would cut numbers
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def compare(rows: Sequence[Row]) -> Iterator[tuple[Row, str, list[float]]]:
    """The speed-ups of our rows over what they were timed in turns with, round by round.

    Yields:
        Our row, `ratio` or `ratio_to_reference`, and the ratio of the blocks of each round.
    """
    others = [row for row in rows if row.variant not in (OURS, PRESET) and row.blocks]
    for row in rows:
        for other in others if row.variant in (OURS, PRESET) and row.blocks else []:
            if _subject(row) == _subject(other):
                column = "ratio_to_reference" if other.variant == REFERENCE else "ratio"
                pairs = zip(row.blocks, other.blocks, strict=True)
                yield row, column, [ours / theirs for ours, theirs in pairs]


def _subject(row: Row) -> tuple[str, str, str]:
    return row.part, row.configuration, row.model


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows, ours with the median and the quartiles of their speed-ups."""
    found: dict[int, dict[str, Any]] = {id(row): {} for row in rows}
    for row, column, ratios in compare(rows):
        found[id(row)][column] = statistics.median(ratios)
        if len(ratios) > 1:
            low, high = quartiles(ratios)
            found[id(row)] |= {f"{column}_low": low, f"{column}_high": high}
    return [replace(row, **found[id(row)]) for row in rows]


def show_rows(rows: Sequence[Row], console: Console) -> None:
    """Prints a table for every part, without empty columns, and the ratios of all rounds."""
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
    for row, column, ratios in compare(rows):
        against = "reference" if column == "ratio_to_reference" else "baseline"
        values = " ".join(f"{ratio:.3g}" for ratio in ratios)
        text = f"{row.part} {row.configuration} {row.model}, {row.variant} / {against}: {values}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def column_names(rows: Sequence[Row]) -> list[str]:
    """The columns in which one of the rows has a value."""
    return [name for name, show in COLUMNS.items() if any(show(row) for row in rows)]


def show_skipped(skipped: dict[str, str], console: Console) -> None:
    """Prints what was not measured, by the reason."""
    for reason in dict.fromkeys(skipped.values()):
        labels = [label for label, why in skipped.items() if why == reason]
        text = f"Not measured, {reason}: {'; '.join(labels)}."
        console.print(text, highlight=False, markup=False)  # names of extras are in brackets


def show_machine(machine: Machine, console: Console) -> None:
    """Prints the limits of the machine."""
    console.print(
        f"{machine.name}: matrix products at {short(machine.float32)}FLOP/s in float32, "
        f"{short(machine.bfloat16)}FLOP/s in bfloat16; copies at {short(machine.copy)}B/s.",
        highlight=False,
        soft_wrap=True,
    )


def write_results(
    rows: Sequence[Row], skipped: dict[str, str], machine: Machine, command: str, path: Path
) -> None:
    """Writes all rows, with their blocks, as JSON.

    Raises:
        ConfigError: If the file cannot be written.
    """
    measured = [{k: v for k, v in asdict(row).items() if _is_known(v)} for row in rows]
    result = {"command": command, "machine": machine.to_dict(), "rows": measured}
    with output_errors(path):
        write_json(path, {**result, "skipped": skipped})


def short(value: float | None) -> str:
    """Returns three digits and a unit, for example `12.3 k`; nothing for None."""
    if value is None:
        return ""
    for unit, letter in _UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.3g} "


def _is_known(value: Any) -> bool:
    """Whether there is a value, and JSON can represent it."""
    return value not in (None, ()) and not (isinstance(value, float) and not math.isfinite(value))


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _times(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """For example `4.1x (3.9 to 4.4)`: the median, and the quartiles where they are known."""
    quartiles = "" if low is None or high is None else f" ({low:,.3g} to {high:,.3g})"
    return "" if value is None else f"{value:,.3g}x{quartiles}"


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
    "x baseline": lambda row: _times(row.ratio, row.ratio_low, row.ratio_high),
    "x reference": lambda row: _times(
        row.ratio_to_reference, row.ratio_to_reference_low, row.ratio_to_reference_high
    ),
    "x published": lambda row: _times(row.ratio_to_published),
    "of published GiB": lambda row: _share(row.memory_to_published),
    "difference": lambda row: "" if row.difference is None else f"{row.difference:.2g}",
    "note": lambda row: row.note,
}
