"""Tables of scores: a row per model, seed, episode length and checkpoint."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from trainers.files import write_atomic

COLUMNS = (
    "environment",
    "model",
    "seed",
    "length",
    "success",
    "episodes",
    "which",
    "sem",
    "step",
    "seconds",
    "return",
    "return_sem",
    "steps",
)
_NEEDED = ("model", "seed", "length", "success", "which")
_TEXT = ("environment", "model", "which")
_WHOLE = ("seed", "length", "episodes", "step")


def write_scores(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a table of scores, whole or not at all; what one environment alone tells comes last.

    Raises:
        ConfigError: If the file cannot be written.
    """
    rows, text = list(rows), io.StringIO()
    columns = [*COLUMNS, *other_metrics(rows)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.getvalue())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def read_scores(path: Path) -> list[dict[str, Any]]:
    """Read a table of scores written by `write_scores`.

    Raises:
        ConfigError: If it cannot be read, or is no such table.
    """
    rows = read_table(path)
    if not rows or not set(_NEEDED) <= set(rows[0]):
        raise ConfigError(
            f"{path} is no table of scores: it needs rows under {', '.join(_NEEDED)}. "
            "scripts/study.py and scripts/evaluate.py write such tables."
        )
    for number, row in enumerate(rows, start=2):
        try:
            row["seed"], row["length"] = int(row["seed"]), int(row["length"])
            for name in set(row) - {"seed", "length", *_TEXT}:
                kind = int if name in _WHOLE else float
                row[name] = kind(row[name]) if row[name] else None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}, line {number}: {error}.") from error
    return rows


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file with a header, as text.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is no CSV file: {error}.") from error


def main_metric(rows: Sequence[dict[str, Any]]) -> str:
    """What rows are judged by: success, or the return where there is no success."""
    return "success" if any(row["success"] is not None for row in rows) else "return"


def other_metrics(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What rows have beside the columns that all tables have, in its order."""
    return [name for name in dict.fromkeys(n for row in rows for n in row) if name not in COLUMNS]


def by_length(
    rows: Sequence[dict[str, Any]], metric: str, model: str, which: str = "last"
) -> dict[int, list[float]]:
    """A metric of a model's seeds at every length."""
    scores: dict[int, list[float]] = {}
    for row in rows:
        if row["model"] == model and row["which"] == which and row.get(metric) is not None:
            scores.setdefault(row["length"], []).append(row[metric])
    return scores


def training_seconds(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How long training took by model, mean over seeds."""
    seconds: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.get("seconds"):
            seconds.setdefault(str(row["model"]), {})[int(row["seed"])] = float(row["seconds"])
    return {model: statistics.mean(values.values()) for model, values in seconds.items()}


def mean_and_spread(values: Sequence[float]) -> str:
    """`0.98 ± 0.01`: mean and standard deviation over seeds, which one seed alone has not."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def markdown(rows: Sequence[dict[str, Any]], metrics: Sequence[str] = ()) -> str:
    """Scores of the last weights as a Markdown table: mean and standard deviation over seeds.

    Args:
        rows: The scores.
        metrics: Columns for every length; the main one if there are none.
    """
    metrics = metrics or [main_metric(rows)]
    lengths = sorted({row["length"] for row in rows})
    names = [name if len(lengths) == 1 else f"{name} at {n:,}" for name in metrics for n in lengths]
    if len(metrics) == 1:
        names = [f"{length:,}" for length in lengths]
    lines = ["| model | seeds | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = []
        for metric in metrics:
            scores = by_length(rows, metric, model)
            cells += [mean_and_spread(scores.get(length, [])) for length in lengths]
        seeds = len({row["seed"] for row in rows if row["model"] == model})
        lines.append(f"| {model} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
