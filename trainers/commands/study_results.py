"""Results of a study: which runs have finished, their rows of scores, and those of baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from rate.errors import ConfigError
from rate.files import load_json, write_json
from trainers.changes import differences
from trainers.commands.outputs import check_picture
from trainers.commands.scores import check_scores
from trainers.commands.study_evaluations import Evaluation, evaluation_rows
from trainers.commands.study_file import Study
from trainers.config import LoggingConfig, RunConfig
from trainers.config_files import load_config_file
from trainers.meter import Meter
from trainers.registry import environment_of_run


def score_baselines(study: Study, jobs: int, console: Console) -> list[dict[str, Any]]:
    """Returns rows of scores of the baselines, which are cached in the folder of the runs.

    Args:
        study: The study, with at least one run if it has baselines.
        jobs: The number of worker processes.
        console: Shows the progress.
    """
    if not study.baselines:
        return []
    from trainers.baselines import score_baseline  # slow to import: only if there are baselines

    config, rows = study.runs[0], []
    environment = environment_of_run(config)
    settings = config.evaluation
    seeds = range(settings.test_seed, settings.test_seed + settings.episodes)
    for name in study.baselines:
        known = {"environment": config.environment, "model": name, "seed": 0, "which": "last"}
        request = {"lengths": settings.lengths, "seeds": [seeds[0], seeds[-1]], "env": config.env}
        path = Path(config.logging.output) / f"{config.environment}-{name}.json"
        cached = _cached(path)
        if cached.get("asked") != request:
            console.print(f"Scoring {name} ...")
            with Meter(console) as meter:
                scored = score_baseline(
                    name,
                    environment,
                    lengths=settings.lengths,
                    seeds=seeds,
                    workers=jobs,
                    on_progress=meter.show,
                )
            cached = {"asked": request, "rows": scored}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, cached)
        rows += [{**known, **row} for row in cached["rows"]]
    return rows


def _cached(path: Path) -> dict[str, Any]:
    """Returns the cached scores of a baseline; empty if the file cannot be read."""
    try:
        cached: dict[str, Any] = load_json(path)
    except (OSError, ValueError):
        return {}
    return cached


def run_folder_of(config: RunConfig) -> Path:
    """Returns the folder of a run of a study."""
    return Path(config.logging.output) / config.run_name


def is_finished(config: RunConfig, evaluations: Mapping[str, Evaluation]) -> bool:
    """Whether a run has been scored, in every evaluation.

    Raises:
        ConfigError: If its folder holds a finished run with other settings.
    """
    folder = run_folder_of(config)
    if not (folder / "evaluation.json").is_file():
        return False
    before = _without_free_settings(load_config_file(folder / "config.yaml"))
    changed = differences(before, _without_free_settings(config))
    for name, (old, new) in changed.items():
        raise ConfigError(
            f"{folder} holds a run with {name} {old}, but {new} is asked for. Move that run away, "
            "or give another --output."
        )
    return all(
        evaluation_rows(folder, name, each) is not None for name, each in evaluations.items()
    )


def _without_free_settings(config: RunConfig) -> dict[str, Any]:
    """Returns the settings that scores depend on; others have their default values."""
    return replace(
        config,
        logging=LoggingConfig(),
        training=replace(config.training, threads=None),
        data=replace(config.data, root="", workers=None),
        evaluation=replace(config.evaluation, workers=None),
    ).to_dict()


def run_rows(config: RunConfig, evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """Returns the scores of a finished run, a row per length and checkpoint, or evaluation.

    Raises:
        ConfigError: If `evaluation.json` is damaged.
    """
    folder = run_folder_of(config)
    path = folder / "evaluation.json"
    try:
        evaluation = load_json(path)
        rows = list(evaluation["rows"])
        for name, each in evaluations.items():
            rows += evaluation_rows(folder, name, each) or []
        known = {"model": config.logging.name, "seed": config.training.seed}
        known["trained_length"] = config.trained_length
        known["seconds"] = evaluation["training_seconds"]
        return [{**row, **known} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged; remove it to score that run again.") from error


def check_outputs(results: Path, figure: Path) -> None:
    """Check that the table and the figure can be written and replace no files of another kind.

    Raises:
        ConfigError: If a check fails.
    """
    if results == figure:
        raise ConfigError(f"{results} is the name of the figure; name the table as a .csv file.")
    check_scores(results)
    check_picture(figure, ".png")
