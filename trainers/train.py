"""A whole training run: data, training, final evaluation, and a folder that holds it all."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from datamodules.trajectories import TrajectoryDataModule
from rate.errors import ConfigError
from rate.weights import SavedModel, load_model, save_model
from trainers.callbacks import (
    Curriculum,
    Progress,
    Report,
    Reporter,
    SafeCheckpoint,
    SafeCheckpointIO,
    SelectionRollouts,
    Throughput,
)
from trainers.callbacks.checkpoint import LAST
from trainers.config import RunConfig
from trainers.csv_logger import MetricsTable
from trainers.errors import Interrupted
from trainers.files import write_json
from trainers.registry import EnvironmentEntry, get_environment
from trainers.rollout import evaluate
from trainers.runs import CHECKPOINTS, EVALUATION, create_run, open_run, write_environment
from trainers.sequence import SequenceTrainer

# A model that trains on a CPU in minutes gains little from a second thread, and where cores are
# shared the two wait for each other: twice the threads have cost five times the time.
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


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of those that train together."""
    return getattr(rank_zero_only, "rank", None) in (None, 0)


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
    environment = get_environment(config.environment)
    folder = resume or Path(config.logging.output) / config.run_name
    if is_main_process():
        if resume is None:
            create_run(config)
        else:
            open_run(resume, config)
        write_environment(folder, command)
    try:
        datamodule = _make_datamodule(config, environment)
    except Exception:
        if resume is None and is_main_process():
            shutil.rmtree(folder, ignore_errors=True)  # there is nothing to resume
        raise
    module = SequenceTrainer(config, environment.spec)
    with _threads(config.training.threads), _quiet():
        trainer, callbacks = _fit(
            module, datamodule, environment, folder, resume is not None, report
        )
        if not is_main_process():
            return RunResult(folder, steps=trainer.global_step)
        _save_last(module, folder, trainer.global_step)
        result = _summarise(folder, trainer, callbacks)
        _evaluate(config, environment, result, report)
    return result


def _make_datamodule(config: RunConfig, environment: EnvironmentEntry) -> TrajectoryDataModule:
    data, training = config.data, config.training
    store = data.store or environment.prepare_data(data, config.max_length)
    return TrajectoryDataModule(
        store,
        batch_size=training.batch_size,
        context_length=config.model.context_length,
        segments=training.segments,
        seed=training.seed,
        mode=data.window,
        spec=environment.spec,
    )


@dataclass(frozen=True)
class _Callbacks:
    throughput: Throughput
    selection: SelectionRollouts


def _fit(
    module: SequenceTrainer,
    datamodule: TrajectoryDataModule,
    environment: EnvironmentEntry,
    folder: Path,
    resume: bool,
    report: Report | None,
) -> tuple[Trainer, _Callbacks]:
    config, checkpoints = module.config, folder / CHECKPOINTS
    training = config.training
    throughput = Throughput(training.log_every_n_steps)
    progress = Progress(training.max_steps) if config.logging.progress else None
    selection = SelectionRollouts(
        environment.make_vector,
        checkpoints / "best",
        config.evaluation.every_n_steps,
        training.max_steps,
        on_step=None if progress is None else progress.show_rollout,
    )
    # In this order: time a batch before anything else takes any, save when all else is settled.
    callbacks: list[Callback] = [throughput, selection]
    if progress is not None:
        callbacks.append(progress)
    if report is not None:
        callbacks.append(Reporter(training.max_steps, report))
    if config.curriculum.enabled:
        callbacks.append(Curriculum(config.curriculum, datamodule))
    callbacks.append(
        SafeCheckpoint(checkpoints, training.checkpoint_every_n_steps, training.max_steps)
    )
    trainer = Trainer(
        accelerator=training.accelerator,
        devices=training.devices,
        strategy=training.strategy,
        precision=training.precision,  # type: ignore[arg-type]
        max_steps=training.max_steps,
        max_epochs=-1,
        logger=_make_loggers(config, folder),
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    checkpoint = checkpoints / LAST if resume and _has_checkpoint(checkpoints) else None
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint)
    except Interrupted:
        if not is_main_process():
            raise SystemExit(0) from None  # the first process tells of it
        raise
    return trainer, _Callbacks(throughput, selection)


def _has_checkpoint(folder: Path) -> bool:
    return any(folder.glob("*.ckpt"))


def _make_loggers(config: RunConfig, folder: Path) -> list[Logger]:
    loggers: list[Logger] = [MetricsTable(folder)]
    if config.logging.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if config.logging.wandb:
        loggers.append(_make_wandb(config, folder))
    return loggers


def _make_wandb(config: RunConfig, folder: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    path = Path("wandb_config.yaml")
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    try:
        logger = WandbLogger(name=config.run_name, save_dir=folder, **(settings or {}))
    except ModuleNotFoundError as error:
        raise ConfigError(
            "logging.wandb needs the package wandb: pip install -e '.[wandb]', or leave it off."
        ) from error
    logger.log_hyperparams(config.to_dict())
    return logger


def _save_last(module: SequenceTrainer, folder: Path, step: int) -> None:
    decoding = module.config.evaluation.decoding
    saved = SavedModel(module.model, module.spec, decoding, {"step": step})
    save_model(saved, folder / CHECKPOINTS / "last")


def _summarise(folder: Path, trainer: Trainer, callbacks: _Callbacks) -> RunResult:
    throughput = callbacks.throughput
    return RunResult(
        folder,
        steps=trainer.global_step,
        best_step=callbacks.selection.best_step,
        seconds=throughput.seconds,
        timesteps_per_second=throughput.timesteps / max(throughput.seconds, 1e-9),
    )


def _evaluate(
    config: RunConfig,
    environment: EnvironmentEntry,
    result: RunResult,
    report: Report | None,
) -> None:
    """Score the last and the best weights on the held-out seeds; write `evaluation.json`."""
    settings = config.evaluation
    scores: dict[int, list[dict[str, Any]]] = {}
    for which, step in (("last", result.steps), ("best", result.best_step)):
        if step is None:
            continue
        if step not in scores:  # where the best weights are the last ones, once is enough
            saved = load_model(result.folder / CHECKPOINTS / which)
            scores[step] = evaluate(
                saved.model,
                saved.spec,
                environment.make_vector,
                settings,
                lengths=settings.lengths,
                first_seed=settings.test_seed,
                on_step=_for_rollouts(report),
            )
        for row in scores[step]:
            result.rows.append({"model": config.name, "which": which, "step": step, **row})
    write_json(
        result.folder / EVALUATION,
        {
            "environment": config.environment,
            "seed": config.training.seed,
            "first_episode_seed": settings.test_seed,
            "last_episode_seed": settings.test_seed + settings.episodes - 1,
            "target_return": environment.spec.target_return
            if settings.target_return is None
            else settings.target_return,
            "trained_steps": result.steps,
            "training_seconds": round(result.seconds, 3),
            "timesteps_per_second": round(result.timesteps_per_second, 1),
            "rows": result.rows,
        },
    )


def _for_rollouts(report: Report | None) -> Callable[[int, int], None] | None:
    if report is None:
        return None
    return lambda length, step: report(f"scoring at {length}", step, length)


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
