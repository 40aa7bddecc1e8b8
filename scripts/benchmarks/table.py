"""The README's speed table, from the table that measurements are added to."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from rate.errors import ConfigError
from scripts.benchmarks.report import COLUMNS, TEXT_COLUMNS, TITLES, column_names
from scripts.benchmarks.rows import Row

_KINDS: dict[str, Callable[[str], str | int | float]] = {"str": str, "int": int, "float": float}
_LEFT_OUT = ("±", "of", "bytes/s", "params")
_SAME = ("part", "configuration", "model", "variant", "size", "workers", "precision")


def read_table(path: Path) -> dict[str, list[Row]]:
    """The rows of each device, the latest of those that measure the same thing.

    Raises:
        ConfigError: If there is no table, or one of something else.
    """
    devices: dict[str, dict[tuple[object, ...], Row]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for values in csv.DictReader(file):
                row = Row(**{f.name: _parsed(values[f.name], str(f.type)) for f in fields(Row)})  # type: ignore[arg-type]
                same = *(getattr(row, name) for name in _SAME), row.series, row.value
                devices.setdefault(values["device"], {})[same] = row
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no table of scripts/benchmark.py: {error}.") from error
    return {device: list(rows.values()) for device, rows in devices.items()}


def _parsed(text: str, kind: str) -> str | int | float | None:
    """A value as a field of `Row` has it, whose annotation is `kind`."""
    base, _, optional = kind.partition(" | ")
    return None if optional and not text else _KINDS[base](text)


def markdown(path: Path, parts: Sequence[str]) -> str:
    """Tables in Markdown: one for each device and part.

    Raises:
        ConfigError: If there is no table, or one of something else.
    """
    blocks = []
    for device, rows in read_table(path).items():
        for part in parts:
            chosen = [row for row in rows if row.part == part]
            if chosen:
                blocks += [f"**{TITLES[part]}** ({device})", _table(chosen)]
    return "\n\n".join(blocks)


def _table(rows: Sequence[Row]) -> str:
    names = [name for name in column_names(rows) if name not in _LEFT_OUT]
    lines = [names, ["---" if name in TEXT_COLUMNS else "---:" for name in names]]
    lines += [[COLUMNS[name](row) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
