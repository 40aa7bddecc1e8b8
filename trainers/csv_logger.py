"""Metrics as a CSV table; two identical runs write identical bytes."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from rate.errors import UserError, parsing
from rate.files import read_small, write_atomic
from rate.renamed import current_metric

METRICS = "metrics.csv"
STEP = "step"
SELECTION = "selection/"  # scores of the rollouts that select weights
_MOST_BYTES = 1 << 32


class MetricsTable(Logger):
    """Writes `metrics.csv`: a row per logged step, a column per metric.

    New metrics add columns on the right. A row is appended to the file when the next row begins.
    The whole file is rewritten atomically when columns are added or rows are dropped.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / METRICS
        self._rows: list[dict[str, str]] = []
        self._columns = [STEP]
        self._written: int | None = None  # rows in the file; None if it must be rewritten
        if self.path.exists():
            self._read()

    @property
    def name(self) -> str:
        return "table"

    @property
    def version(self) -> str:
        return ""

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows, with the metrics that were logged at their steps."""
        return self._rows

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Does nothing: hyperparameters are in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of `step`: the last row, or a new one."""
        row = {name: _text(value) for name, value in metrics.items()}
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:
            self._columns += new_columns
            self._written = None
        if self._rows and self._rows[-1][STEP] == str(step):
            self._rows[-1].update(row)
            if self._written == len(self._rows):
                self._written = None
            return
        self.save()
        self._rows.append({STEP: str(step), **row})

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows after `step`, and the columns that only they have."""
        self._rows = [row for row in self._rows if int(row[STEP]) <= step]
        used = set().union(*self._rows) if self._rows else set()
        self._columns = [name for name in self._columns if name == STEP or name in used]
        self._written = None
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write pending rows to the file.

        Raises:
            OSError: If it cannot be written, for example on a full disk.
        """
        if self._written is None:
            header = {name: name for name in self._columns}
            write_atomic(self.path, self._format([header, *self._rows]))
        elif self._written < len(self._rows):
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._format(self._rows[self._written :]))
        self._written = len(self._rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _format(self, rows: list[dict[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue()

    def _read(self) -> None:
        """Read the rows of an interrupted run; an incomplete last line is dropped.

        Raises:
            UserError: If the file is damaged.
        """
        with parsing(UserError, self.path, "is damaged; move it away to go on without its rows"):
            text = read_small(self.path, _MOST_BYTES)
            lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[STEP]]
            header = [current_metric(name) for name in lines[0]]
            if header[0] != STEP or len(set(header)) < len(header):
                raise ValueError("its first line does not name the columns")
            self._columns = header
            self._rows = [_row(header, line) for line in lines[1:]]


def _row(header: list[str], line: list[str]) -> dict[str, str]:
    """Returns a row of the file by column, without empty cells.

    Raises:
        ValueError: If it has too many or too few cells, or one is not a number.
    """
    row = {name: value for name, value in zip(header, line, strict=True) if value}
    int(row[STEP])
    for value in row.values():
        float(value)
    return row


def online_evaluations(folder: Path, which: str) -> int:
    """Returns how many evaluations in the environment chose the weights of a run.

    Args:
        folder: The folder of the run.
        which: `last`, which none chose, or `best`.
    """
    if which == "last":
        return 0
    rows = MetricsTable(folder).rows
    return sum(any(name.startswith(SELECTION) for name in row) for row in rows)


def _text(value: float) -> str:
    """Returns a number with nine significant digits, enough to distinguish any two float32."""
    return f"{float(value):.9g}"
