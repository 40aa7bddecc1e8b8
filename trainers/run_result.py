"""The result of a run: scores of its last and best weights, and `evaluation.json`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from rate.errors import ConfigError
from rate.files import load_json, write_json
from rate.weights import CHECKPOINTS
from trainers.callbacks import Report
from trainers.config import RunConfig
from trainers.config_files import load_config_file
from trainers.csv_logger import online_evaluations
from trainers.environment import Environment, Length, at_length
from trainers.launch import is_main_process
from trainers.loggers import log_scores
from trainers.meter import Meter
from trainers.rollout import OnProgress, evaluate
from trainers.runs import CONFIG, EVALUATION
from trainers.shared_rollouts import shared_model


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        folder: The run's folder.
        rows: The rows of `evaluation.json`: `model`, `which` (last or best), `length`,
            `episodes`, `success`, `sem`, `return`, `return_sem`, `online_evaluations` (how many
            evaluations in the environment chose the weights).
        steps: Optimiser steps taken, over all interruptions.
        best_step: Optimiser step of the best weights; None if none were selected.
        seconds: Time in training steps, over all interruptions.
        timesteps_per_second: Real steps of episodes trained on per second.
        held_out: Metrics of the last and the best weights on held-out steps: `which`, `step`, and
            the result of `trainers.held_out.Account.row`; empty if no episode is held out.
        memory: The distance between the memories of episodes after filler, of the last and the best
            weights; see `trainers.retention.measure_retention`.
    """

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    best_step: int | None = None
    seconds: float = 0.0
    timesteps_per_second: float = 0.0
    held_out: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)


def finished_result(folder: Path, config: RunConfig) -> RunResult | None:
    """Returns the result of a run that has finished with these settings, or None."""
    try:
        before = load_config_file(folder / CONFIG)
        known = load_json(folder / EVALUATION)
        is_same = replace(before, logging=config.logging) == config
        settings = asdict(config.evaluation)
        scored = (known["trained_steps"], {**settings, **known["evaluation"]})
        if not is_same or scored != (config.training.max_steps, settings):
            return None
        measured = [*known["rows"], *known.get("held_out", [])]
        return RunResult(
            folder,
            rows=known["rows"],
            steps=known["trained_steps"],
            best_step=next((r["step"] for r in measured if r["which"] == "best"), None),
            seconds=known["training_seconds"],
            timesteps_per_second=known["timesteps_per_second"],
            held_out=known.get("held_out", []),
            memory=known.get("memory", []),
        )
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return None


def score_weights(
    config: RunConfig,
    environment: Environment,
    result: RunResult,
    device: torch.device,
    report: Report | None,
    loggers: Sequence[Logger],
) -> None:
    """Score the last and the best weights on the held-out seeds; log and write the scores.

    Rollouts use the device of training. All processes take part in them, and the first writes.
    `evaluation.json` is written last; it marks a finished run.
    """
    settings = config.evaluation
    lengths = settings.lengths if environment.rolls_out else []
    scores: dict[int, list[dict[str, Any]]] = {}
    for which, step in (("last", result.steps), ("best", result.best_step)):
        if step is None:
            continue
        chosen = online_evaluations(result.folder, which)
        if step not in scores:  # the best weights may be the last ones
            model, trained_range = shared_model(
                result.folder / CHECKPOINTS / which, config, environment.spec
            )
            with Meter(shown=config.logging.progress and is_main_process()) as meter:
                scores[step] = evaluate(
                    model.to(device),
                    environment,
                    settings,
                    lengths=lengths,
                    first_seed=settings.test_seed,
                    on_progress=_for_rollouts(report, meter, which),
                    trained_range=trained_range,
                )
        for row in scores[step]:
            known = {"environment": config.environment, "model": config.name, "which": which}
            result.rows.append({**known, "step": step, "online_evaluations": chosen, **row})
    if not is_main_process():
        return
    target = settings.target_return
    content = {
        "environment": config.environment,
        "environment_options": environment.spec.options,
        "seed": config.training.seed,
        "first_episode_seed": settings.test_seed,
        "last_episode_seed": settings.test_seed + settings.episodes - 1,
        "target_return": environment.spec.target_return if target is None else target,
        "trained_range": trained_range,
        "evaluation": asdict(settings),
        "trained_steps": result.steps,
        "training_seconds": round(result.seconds, 3),
        "timesteps_per_second": round(result.timesteps_per_second, 1),
        "rows": result.rows,
        "held_out": result.held_out,
        "memory": result.memory,
    }
    try:
        log_scores(loggers, result.rows, result.steps)
        write_json(result.folder / EVALUATION, content)
    except OSError:
        summary = "; ".join(
            f"{row['which']} at {row['length']}: success {row['success']}, return {row['return']}"
            for row in result.rows
        )
        warnings.warn(f"The scores are not saved: {summary}.", stacklevel=2)
        raise


def _for_rollouts(report: Report | None, meter: Meter, which: str) -> OnProgress:
    def show(length: Length, share: float) -> None:
        meter.show(f"scoring the {which} weights at {at_length(length)}", share, 1)
        if report is not None:
            report(f"scoring at {at_length(length)}", round(100 * share), 100)

    return show
