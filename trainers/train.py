"""A whole training run: data, training, final evaluation, and a folder that holds it all."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from datamodules.disks import told_when_unwritable
from rate.weights import SavedModel, load_model, save_model
from trainers.callbacks import Report
from trainers.config import RunConfig
from trainers.entries import EnvironmentEntry
from trainers.errors import TrainingError
from trainers.files import write_json
from trainers.fitting import (
    Fitting,
    is_main_process,
    make_datamodule,
    make_fitting,
    with_record,
    with_target,
)
from trainers.registry import check_run, get_environment
from trainers.rollout import OnProgress, evaluate
from trainers.runs import (
    CHECKPOINTS,
    EVALUATION,
    create_run,
    made_run,
    open_run,
    write_environment,
)
from trainers.scaling import scale_to_data
from trainers.sequence import SequenceTrainer

__all__ = ["RunResult", "is_main_process", "train"]

# One, for the same numbers on every machine. A preset gains a third from a second thread, and where
# cores are shared the two wait for each other: twice the threads have cost five times the time.
_DEFAULT_THREADS = 1
# What Lightning says to everyone, and nobody here can act on.
_NOT_FOR_USERS = (
    r".*does not have many workers.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*GPU available but not used.*",
    r".*tensorboardX.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
)


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        folder: The run's folder.
        rows: The rows of `evaluation.json`: `model`, `which` (last or best), `length`,
            `episodes`, `success`, `sem`, `return`, `return_sem`.
        steps: Optimiser steps taken, over all interruptions.
        best_step: Optimiser step of the best weights, or None where none were chosen.
        seconds: Time in training steps, over all interruptions.
        timesteps_per_second: Real steps of episodes trained on in a second.
    """

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    best_step: int | None = None
    seconds: float = 0.0
    timesteps_per_second: float = 0.0


def train(
    config: RunConfig,
    resume: Path | None = None,
    command: str | None = None,
    report: Report | None = None,
) -> RunResult:
    """Train a model and evaluate it on held-out seeds.

    Args:
        config: The run.
        resume: The folder of a run to continue instead of starting anew.
        command: What was typed, for `environment.txt`.
        report: Told of every step: what is going on ("training", "scoring at 900"), how many
            steps of it are done, and how many there are.

    Returns:
        The scores. Processes other than the first one evaluate nothing, and return none.

    Raises:
        ConfigError: If the run cannot be started with these settings.
        DatasetError: If the data do not fit.
        TrainingError: If training cannot go on.
        Interrupted: If it was stopped by SIGINT or SIGTERM; its state is saved.
    """
    check_run(config)
    environment = get_environment(
        config.environment, config.env, config.evaluation.workers, config.data.frame_stack
    )
    if not is_main_process():
        folder = resume or made_run(config)
    else:
        folder = resume or create_run(config)
        if resume is not None:
            open_run(resume, config)
        write_environment(folder, command)
    with _threads(config.training.threads), _quiet():
        try:
            datamodule = make_datamodule(config, environment, report)
            environment = with_record(with_target(config, environment, datamodule), datamodule)
            module = SequenceTrainer(config, environment.spec)
            scale_to_data(module.model, datamodule.store, config.data.normalise)
            fitting = make_fitting(config, environment, datamodule, folder, report)
        except Exception:
            if resume is None and is_main_process():
                shutil.rmtree(folder, ignore_errors=True)  # there is nothing to resume
            raise
        advice = f"What was saved before is whole: make room, then continue with --resume {folder}"
        with told_when_unwritable(TrainingError, str(folder), advice):
            fitting.fit(module, datamodule, folder)
            if not is_main_process():
                return RunResult(folder, steps=fitting.trainer.global_step)
            _save_last(module, folder, fitting)
            result = _summarise(folder, fitting)
            _evaluate(config, environment, result, fitting.trainer.strategy.root_device, report)
    return result


def _save_last(module: SequenceTrainer, folder: Path, fitting: Fitting) -> None:
    saved = SavedModel(
        module.model,
        module.spec,
        module.config.evaluation.decoding,
        {"step": fitting.trainer.global_step},
        fitting.selection.trained_range,
    )
    save_model(saved, folder / CHECKPOINTS / "last")


def _summarise(folder: Path, fitting: Fitting) -> RunResult:
    throughput = fitting.throughput
    return RunResult(
        folder,
        steps=fitting.trainer.global_step,
        best_step=fitting.selection.best_step,
        seconds=throughput.seconds,
        timesteps_per_second=throughput.timesteps / max(throughput.seconds, 1e-9),
    )


def _evaluate(
    config: RunConfig,
    environment: EnvironmentEntry,
    result: RunResult,
    device: torch.device,
    report: Report | None,
) -> None:
    """Score the last and the best weights on the held-out seeds; write `evaluation.json`.

    Where they were trained: a model that wants a GPU wants it here as well.
    """
    settings = config.evaluation
    scores: dict[int, list[dict[str, Any]]] = {}
    for which, step in (("last", result.steps), ("best", result.best_step)):
        if step is None:
            continue
        if step not in scores:  # where the best weights are the last ones, once is enough
            saved = load_model(result.folder / CHECKPOINTS / which)
            scores[step] = evaluate(
                saved.model.to(device),
                environment,
                settings,
                lengths=settings.lengths,
                first_seed=settings.test_seed,
                on_progress=_for_rollouts(report),
                trained_range=saved.trained_range,
            )
        for row in scores[step]:
            known = {"environment": config.environment, "model": config.name}
            result.rows.append({**known, "which": which, "step": step, **row})
    target = settings.target_return
    write_json(
        result.folder / EVALUATION,
        {
            "environment": config.environment,
            "environment_options": environment.spec.options,
            "seed": config.training.seed,
            "first_episode_seed": settings.test_seed,
            "last_episode_seed": settings.test_seed + settings.episodes - 1,
            "target_return": environment.spec.target_return if target is None else target,
            "trained_range": saved.trained_range,
            "trained_steps": result.steps,
            "training_seconds": round(result.seconds, 3),
            "timesteps_per_second": round(result.timesteps_per_second, 1),
            "rows": result.rows,
        },
    )


def _for_rollouts(report: Report | None) -> OnProgress | None:
    if report is None:
        return None
    return lambda length, share: report(f"scoring at {length}", round(100 * share), 100)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or _DEFAULT_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says to everyone; its other warnings stay."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOT_FOR_USERS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.setLevel(level)
