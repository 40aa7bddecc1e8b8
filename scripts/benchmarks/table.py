"""The CSV table that measurements are added to, and its rows as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.files import write_atomic
from scripts.benchmarks.figures import FIGURES
from scripts.benchmarks.machine import Machine
from scripts.benchmarks.report import COLUMNS, RESULTS, TEXT_COLUMNS, TITLES, column_names
from scripts.benchmarks.rows import Row
from trainers.commands.outputs import (
    check_picture,
    check_place,
    output_errors,
    read_own_json,
    refusal,
)

_FIELDS = [field for field in fields(Row) if field.name != "blocks"]
_TABLE_COLUMNS = ["device", *(field.name for field in _FIELDS), "command"]
_REQUIRED = {"device", "part", "configuration", "model", "variant", "command"}
_KINDS: dict[str, Callable[[str], str | int | float]] = {"str": str, "int": int, "float": float}
_LEFT_OUT = ("±", "of", "bytes/s", "params")
_SAME = ("part", "configuration", "model", "variant", "size", "workers", "precision")


def check_outputs(folder: Path, table: Path) -> None:
    """Checks that files can be written and replace none of another kind.

    Raises:
        ConfigError: If not.
    """
    read_own_json(folder / RESULTS, "file of measurements", {"command", "machine", "rows"})
    for figure in FIGURES:
        check_picture(folder / figure, ".png")
    check_place(table)
    _rows_to_keep(table)


def append_table(rows: Sequence[Row], machine: Machine, command: str, path: Path) -> None:
    """Adds rows to a CSV table, all or none, and creates the table if there is none.

    Raises:
        ConfigError: If the file is not such a table, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _TABLE_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(_rows_to_keep(path))
    for row in rows:
        values = {name: _rounded(value) for name, value in asdict(row).items()}
        writer.writerow({"device": machine.name, **values, "command": command})
    with output_errors(path):
        write_atomic(path, text.getvalue())


def read_table(path: Path) -> dict[str, list[Row]]:
    """The rows of each device; of rows that measure the same, the latest.

    Raises:
        ConfigError: If there is no such table.
    """
    devices: dict[str, dict[tuple[object, ...], Row]] = {}
    try:
        for values in _read(path):
            known = {f.name: _parsed(values.get(f.name, ""), str(f.type)) for f in _FIELDS}
            row = Row(**known)  # type: ignore[arg-type]
            same = *(getattr(row, name) for name in _SAME), row.series, row.value
            devices.setdefault(values["device"], {})[same] = row
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no table of scripts/benchmark.py: {error}.") from error
    return {device: list(rows.values()) for device, rows in devices.items()}


def _read(path: Path) -> list[dict[str, str]]:
    """Rows of a table, which may be of a version with fewer columns.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a table.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = set(reader.fieldnames or ())
        if not _REQUIRED <= names <= set(_TABLE_COLUMNS):
            raise ValueError("it has other columns")
        rows = list(reader)
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("its lines differ in length")
    return rows


def _rows_to_keep(path: Path) -> list[dict[str, str]]:
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        return _read(path)
    except (OSError, ValueError, csv.Error) as error:
        raise refusal(path, "table of measurements with the columns of this version") from error


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _parsed(text: str, kind: str) -> str | int | float | None:
    """Returns the value of a field of `Row` with the annotation `kind`."""
    base, _, optional = kind.partition(" | ")
    return None if optional and not text else _KINDS[base](text)


def markdown(path: Path, parts: Sequence[str]) -> str:
    """Returns a table in Markdown for each device and part.

    Raises:
        ConfigError: If there is no such table.
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
