"""Tables of scores: a row per model, seed, episode length and checkpoint."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rate.advice import command
from rate.errors import ConfigError
from rate.files import write_atomic
from rate.locks import locked_folder
from trainers.commands.outputs import check_place, output_errors
from trainers.environment import BASELINES
from trainers.statistics import Scores

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
    "first_seed",
    "invalid",
    "return_to_go",
    "rtg_outside",
    "rtg_outside_steps",
    "rtg_outside_from",
    "trained_length",
    "online_evaluations",
)
# They identify a score, with `first_seed`.
_KEY = ("environment", "model", "seed", "length", "which")
_NEEDED = ("model", "seed", "length", "success", "which")
_TEXT = ("environment", "model", "which", "return_to_go")
_NUMBERED = ("seed", "length")
_WHOLE = (
    *("seed", "length", "episodes", "step", "first_seed", "invalid"),
    *("rtg_outside_steps", "rtg_outside_from", "trained_length", "online_evaluations"),
)

Task = tuple[str, int]
"""What is scored by itself: an environment, and the length of its episodes. The environment
ENV CHANGE is that of an evaluation of the runs of ENV in a changed environment."""


def check_scores(path: Path) -> None:
    """Check that rows can be added to a table of scores.

    Raises:
        ConfigError: If the file cannot be written, or is not a table of scores.
    """
    check_place(path)
    _rows_in(path)


def add_scores(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a table of scores atomically; a missing table is created.

    The rows replace those of the same environment, model, seed, length and weights whose
    `first_seed` is equal or empty. Metrics of one environment are the last
    columns.

    Args:
        path: The CSV file.
        rows: The new rows.

    Raises:
        ConfigError: If the file cannot be written, or is not a table of scores.
    """
    fresh, text = list(rows), io.StringIO()
    known = {(*_key(row), _text(row, "first_seed")) for row in fresh}
    known |= {(*_key(row), "") for row in fresh}
    with output_errors(path), locked_folder(path.parent):
        check_place(path)
        before = _rows_in(path)
        others = [row for row in before if (*_key(row), _text(row, "first_seed")) not in known]
        rows = [*others, *fresh]
        writer = csv.DictWriter(text, [*COLUMNS, *other_metrics(rows)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, text.getvalue())


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_text(row, name) for name in _KEY)


def _text(row: dict[str, Any], name: str) -> str:
    """Returns a cell as text; empty if the row has no value."""
    value = row.get(name)
    return "" if value is None else str(value)


def _rows_in(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a table of scores as text, without empty cells; none if it is missing.

    Raises:
        ConfigError: If the file is not a table of scores.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        read_scores(path)
    except ConfigError as error:
        advice = "It is left as it is. Give the output another name."
        raise ConfigError(f"{error} {advice}") from error
    return [{name: cell for name, cell in row.items() if cell} for row in read_table(path)]


def read_scores(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a table of scores written by `add_scores`; non-finite values are None.

    Raises:
        ConfigError: If the file cannot be read, or is not a table of scores.
    """
    rows = read_table(path)
    if not rows or not set(_NEEDED) <= set(rows[0]):
        raise ConfigError(
            f"{path} is no table of scores: it needs rows under {', '.join(_NEEDED)}. "
            f"`{command('study')}` and `{command('evaluate')}` write such tables."
        )
    for number, row in enumerate(rows, start=2):
        for name in set(row) - set(_TEXT):
            try:
                kind = int if name in _WHOLE else float
                value = kind(row[name]) if row[name] or name in _NUMBERED else None
            except (TypeError, ValueError):
                raise ConfigError(
                    f"{path} is no table of scores: in line {number}, {name} is {row[name]!r}, "
                    "not a number."
                ) from None
            row[name] = value if value is None or math.isfinite(value) else None
    return rows


def read_table(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a CSV file with a header, as text.

    Raises:
        ConfigError: If the file cannot be read, or is not a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is no CSV file: {error}.") from error
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise ConfigError(f"{path} is no table: line {number} has more cells than columns.")
    if len(set(columns)) < len(columns):
        raise ConfigError(f"{path} is no table: two columns have one name.")
    return rows


def main_metric(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the main metric of rows: `success` if any row has it, else `return`."""
    return "success" if any(row["success"] is not None for row in rows) else "return"


def other_metrics(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the columns of rows that are not in `COLUMNS`, in order of appearance."""
    return [name for name in dict.fromkeys(n for row in rows for n in row) if name not in COLUMNS]


def by_environment(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each environment, in order of appearance."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row.get("environment") or "tmaze"), []).append(row)
    return found


def by_value(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of models named MODEL-N, with N for a length and MODEL for a model.

    The environment of a row is followed by its length, so that each length is a part of its own.

    Raises:
        ConfigError: If no model is named so.
    """
    found = []
    for row in rows:
        model, _, value = str(row["model"]).rpartition("-")
        if model and value.isdecimal():
            place = f"{row.get('environment') or 'tmaze'} {row['length']:,}"
            found.append({**row, "environment": place, "model": model, "length": int(value)})
    if not found:
        raise ConfigError("--against draws models named MODEL-N, like lstm-8; there are none.")
    return found


def by_task_name(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of models named TASK-MODEL, each in an environment of the task's own.

    Raises:
        ConfigError: If no model is named so.
    """
    found = []
    for row in rows:
        task, _, model = str(row["model"]).rpartition("-")
        if task:
            name, *change = str(row.get("environment") or "tmaze").split(" ")
            place = " ".join([f"{name}/{task}", *change])
            found.append({**row, "environment": place, "model": model})
    if not found:
        raise ConfigError("--tasks reads models named TASK-MODEL, like medium-dt; there are none.")
    return found


def seed_scores(
    rows: Sequence[dict[str, Any]], metric: str, which: str = "last"
) -> dict[Task, dict[str, dict[int, float]]]:
    """Returns the values of a metric by task, model and seed; lengths ascend.

    Several rows of a seed, of other episodes, are averaged by their numbers of episodes. Baselines
    have `last` rows alone, which stand beside the `best` rows of models.

    Args:
        rows: The scores.
        metric: A column.
        which: The weights, `last` or `best`.
    """
    parts: dict[Task, dict[str, dict[int, list[tuple[float, int]]]]] = {}
    for row in rows:
        is_asked = row["which"] == which or row["model"] in BASELINES
        if is_asked and row.get(metric) is not None:
            task = (str(row.get("environment") or "tmaze"), int(row["length"]))
            seeds = parts.setdefault(task, {}).setdefault(str(row["model"]), {})
            seeds.setdefault(row["seed"], []).append((row[metric], row.get("episodes") or 1))
    places = list(dict.fromkeys(place for place, _ in parts))
    return {
        task: {
            model: {seed: _weighted(values) for seed, values in seeds.items()}
            for model, seeds in parts[task].items()
        }
        for task in sorted(parts, key=lambda task: (places.index(task[0]), task[1]))
    }


def scores_of(tasks: Mapping[Task, Mapping[int, float]]) -> Scores:
    """Returns the scores of tasks by seed for statistics.

    Tasks of one environment with the same seeds are taken as those of the same runs.
    """
    seeds = {task: sorted(found) for task, found in tasks.items()}
    return Scores(
        [[found[seed] for seed in seeds[task]] for task, found in tasks.items()],
        [(task[0].split(" ")[0], *seeds[task]) for task in tasks],
    )


def _weighted(values: Sequence[tuple[float, int]]) -> float:
    """Returns the mean of values with weights; one value is returned to the bit."""
    if len(values) == 1:
        return values[0][0]
    return sum(value * weight for value, weight in values) / sum(weight for _, weight in values)


def by_length(
    rows: Sequence[dict[str, Any]], metric: str, model: str, which: str = "last"
) -> dict[int, list[float]]:
    """Returns a model's values of a metric, one for each seed, by length; see `seed_scores`."""
    scores: dict[int, list[float]] = {}
    for (_, length), models in seed_scores(rows, metric, which).items():
        if model in models:
            scores.setdefault(length, []).extend(models[model].values())
    return scores


def training_seconds(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns the training time in seconds by model, mean over seeds."""
    seconds: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.get("seconds"):
            seconds.setdefault(str(row["model"]), {})[int(row["seed"])] = float(row["seconds"])
    return {model: statistics.mean(values.values()) for model, values in seconds.items()}
