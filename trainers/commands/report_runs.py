"""The runs of a report as their files describe them, and the tables of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rate.errors import ConfigError
from rate.files import read_small
from rate.weights import find_models, read_description
from trainers.changes import changes_no_score, differences
from trainers.commands.cells import iqm_and_interval
from trainers.commands.figures import metric_name
from trainers.commands.scores import add_scores, main_metric, read_scores
from trainers.commands.tables import Table
from trainers.config import RunConfig
from trainers.config_files import load_config_file
from trainers.csv_logger import online_evaluations
from trainers.registry import length_name
from trainers.runs import CONFIG, EVALUATION

_NOTE = (
    "Scores on held-out episodes, which chose nothing. last: the weights of the last update. best: "
    "the weights that scored best in the named evaluations during training, or that had the "
    "least held-out loss. Of several training seeds a cell has the interquartile mean and its 95 % "
    "bootstrap interval over seeds; of one seed, the mean ± its standard error over episodes."
)


@dataclass(frozen=True)
class ReportedRun:
    """A run in a report.

    Attributes:
        folder: Its folder.
        config: Its configuration.
        label: The name of its model; the folder's, if another run has that and the same seed.
        rows: Its scores, as `read_scores` returns them; empty if it has not been scored.
        steps: Optimiser steps of training; None if it has not finished.
        seconds: Of training; None if it has not finished.
        evaluations: How many evaluations in the environment chose the best weights.
    """

    folder: Path
    config: RunConfig
    label: str
    rows: list[dict[str, Any]]
    steps: int | None
    seconds: float | None
    evaluations: int


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Returns what the files of runs say; no weights are loaded.

    Raises:
        ConfigError: If a folder is no run, or a file in it is damaged.
        WeightsError: If a run has no model.
    """
    found: dict[Path, ReportedRun] = {}
    taken: set[tuple[str, str, int]] = set()
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise ConfigError(f"{folder} is no run: {CONFIG} is missing. Give folders like runs/X.")
        find_models(folder)
        config = load_config_file(folder / CONFIG)
        label, seed = config.logging.name or config.name, config.training.seed
        if (config.environment, label, seed) in taken and folder.resolve() not in found:
            label = folder.name
        taken.add((config.environment, label, seed))
        found.setdefault(folder.resolve(), _read(folder, config, label))
    return list(found.values())


def _read(folder: Path, config: RunConfig, label: str) -> ReportedRun:
    content: dict[str, Any] = {}
    path = folder / EVALUATION
    try:
        if path.exists():
            content = dict(json.loads(read_small(path)))
        known = {"environment": config.environment, "model": label, "seed": config.training.seed}
        rows = _checked([{**row, **known} for row in content.get("rows", [])])
        steps, seconds = content.get("trained_steps"), content.get("training_seconds")
        steps, seconds = steps and int(steps), seconds and float(seconds)
    except (ConfigError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error}).") from error
    return ReportedRun(
        folder, config, label, rows, steps, seconds, online_evaluations(folder, "best")
    )


def _checked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows as numbers and text, checked as those of a table of scores are."""
    if not rows:
        return []
    with TemporaryDirectory() as folder:
        table = Path(folder) / "scores.csv"
        add_scores(table, rows)
        return read_scores(table)


def run_table(runs: Sequence[ReportedRun]) -> Table:
    """Returns the table of the runs: what was trained, for how long, and the weights' digest."""
    words = ("run", "environment", "model", "backbone")
    header = [*words, "seed", "updates", "training time", "SHA-256 of weights"]
    rows = []
    for run in runs:
        last = next(iter(find_models(run.folder).values()))
        rows.append(
            [
                run.folder.name,
                run.config.environment,
                run.label,
                run.config.model.backbone,
                str(run.config.training.seed),
                "not finished" if run.steps is None else f"{run.steps:,}",
                "–" if run.seconds is None else f"{run.seconds:.0f} s",
                str(read_description(last).get("weights_sha256", "–"))[:16],
            ]
        )
    return Table("", header, rows, "")


def score_tables(runs: Sequence[ReportedRun]) -> list[Table]:
    """Returns a table for each environment: last and best weights, with n and what chose them."""
    parts: dict[str, list[ReportedRun]] = {}
    for run in runs:
        if run.rows:
            parts.setdefault(run.config.environment, []).append(run)
    return [_score_table(name, part) for name, part in parts.items()]


def _score_table(environment: str, runs: Sequence[ReportedRun]) -> Table:
    rows = [row for run in runs for row in run.rows]
    lengths, metric = sorted({row["length"] for row in rows}), main_metric(rows)
    lines = []
    for label, which in dict.fromkeys((row["model"], row["which"]) for row in rows):
        own = [run for run in runs if run.label == label]
        part = [row for run in own for row in run.rows if row["which"] == which]
        episodes = _range([row["episodes"] for row in part if row.get("episodes")])
        chosen = "–" if which == "last" else _chosen_by(own)
        cells = [_cell([r for r in part if r["length"] == n], metric) for n in lengths]
        lines.append([label, which, chosen, str(len({r["seed"] for r in part})), episodes, *cells])
    words = ["model", "weights", "chosen by", "seeds", "episodes"]
    title = f"{environment}: {metric_name(metric)} by {length_name(environment)}"
    return Table(title, [*words, *(f"{length:,}" for length in lengths)], lines, _NOTE)


def _cell(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """Returns the scores of seeds at one length: of several with their interval over seeds."""
    known = [row for row in rows if row.get(metric) is not None]
    error = known[0].get("sem" if metric == "success" else "return_sem") if known else None
    if len(known) == 1 and error is not None:
        return f"{known[0][metric]:.2f} ± {error:.2f}"
    return iqm_and_interval([row[metric] for row in known])


def _chosen_by(runs: Sequence[ReportedRun]) -> str:
    """Returns what chose the best weights of runs, and how often it was measured in each."""
    if not any(run.evaluations for run in runs):
        return "held-out loss"
    settings = [run.config.evaluation for run in runs]
    sizes = [each.selection_episodes or each.episodes for each in settings]
    numbers = [run.evaluations for run in runs]
    return f"evaluations: {_range(numbers)}, of {_range(sizes)} episodes"


def _range(numbers: Sequence[int]) -> str:
    """Returns the least and the greatest number, `3 to 5`; a dash without numbers."""
    ends = dict.fromkeys((min(numbers), max(numbers))) if numbers else {}
    return " to ".join(f"{number:,}" for number in ends) or "–"


def settings_table(runs: Sequence[ReportedRun]) -> Table:
    """Returns the settings that all models have and that differ; without rows if none does.

    Seeds, names and folders are left out.
    """
    firsts = {run.label: run.config.to_dict() for run in reversed(runs)}
    labels = list(dict.fromkeys(run.label for run in runs))
    base, *others = (firsts[label] for label in labels)
    names = {name: None for other in others for name in differences(base, other)}
    lines = {
        name: [_value(settings, name) for settings in (base, *others)]
        for name in names
        if not changes_no_score(name) and name not in ("name", "training.seed")
    }
    rows = [[name, *map(str, line)] for name, line in lines.items() if None not in line]
    return Table("", ["setting", *labels], rows, "")


def _value(settings: dict[str, Any], name: str) -> Any:
    """Returns the value of a dotted setting, None if there is none."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
