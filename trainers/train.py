"""A complete training run: data, training and final evaluation, in a run folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.loggers import Logger

from datamodules.disk_errors import explain_write_errors
from datamodules.trajectories import TrajectoryDataModule
from rate.advice import command as command_for
from rate.files import write_json
from rate.stopping import message_on_stop, stop_signals
from rate.trust import remember_path
from rate.weights import CHECKPOINTS, SavedModel, save_model
from trainers import trust
from trainers.agreement import agreeing, facts_of, join
from trainers.callbacks import Report
from trainers.callbacks.checkpoint import find_checkpoint
from trainers.config import Resume, RunConfig
from trainers.environment import Environment
from trainers.errors import TrainingError
from trainers.fitting import (
    Batches,
    Fitting,
    make_datamodule,
    make_fitting,
    make_trainer,
    with_record,
    with_target,
    without_target,
)
from trainers.gathering import gather
from trainers.held_out import episodes_held_out, measure_weights
from trainers.horizon import warn_of_horizon
from trainers.initial_weights import find_weights, load_initial_weights
from trainers.launch import is_main_process, launched
from trainers.loggers import make_loggers
from trainers.memory_check import check_memory
from trainers.meter import Meter
from trainers.registry import check_run, environment_of_run
from trainers.retention import measure_retention
from trainers.run_result import RunResult, finished_result, score_weights
from trainers.runs import (
    HELD_OUT,
    enter_run,
    run_folder,
    write_environment,
)
from trainers.scaling import scale_to_data
from trainers.sequence import SequenceTrainer
from trainers.sharding import whole_model
from trainers.sources.online import OnlineData
from trainers.versions import Facts

__all__ = ["RunResult", "is_main_process", "train"]

# One thread gives the same numbers on every machine. A second thread speeds presets up by a third,
# but on shared cores threads wait for each other: twice the threads took five times as long.
_DEFAULT_THREADS = 1
# Generic messages of Lightning that users cannot act on.
_NOT_FOR_USERS = (
    r".*does not have many workers.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*GPU available but not used.*",
    r".*tensorboardX.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*module\(s\) in eval mode at the start of training.*",  # target networks
    r"FSDP2-wrapped module .* returned a view tensor.*",  # nothing here changes features in place
)


def train(
    config: RunConfig,
    resume: Resume = None,
    command: str | None = None,
    report: Report | None = None,
) -> RunResult:
    """Train a model and evaluate it on held-out seeds.

    Args:
        config: The run.
        resume: The folder of a run to continue. `auto` continues the run of that name if it exists
            and starts it otherwise; for a finished run it returns the scores. None starts a new
            run.
        command: The command line, for `environment.txt`.
        report: Called after every step with the phase ("training", "scoring at 900"), the number
            of completed steps and the total.

    Returns:
        The scores. The other processes take part in the rollouts, and return no scores.

    Raises:
        ConfigError: If the run cannot be started with these settings.
        DatasetError: If the data do not match the settings.
        TrainingError: If training cannot continue.
        Interrupted: If a signal stopped the training; the message names the checkpoint.
        Stopped: If a signal stopped the run before or after training (a `KeyboardInterrupt`).
    """
    if not isinstance(resume, Path):  # then the environment is that of a file
        trust.remember(config.environment, config.env)
        for path in (config.training.objective, config.model.backbone, config.model.tokenizer):
            remember_path(path)
        remember_path(config.data.reading.format or "")
        remember_path(config.data.expert or "")
    check_run(config)
    environment = environment_of_run(config)
    folder = run_folder(config, resume)
    with ExitStack() as stack:
        stack.enter_context(stop_signals())
        cluster = stack.enter_context(launched(config.training))
        stack.enter_context(_threads(config.training.threads))
        stack.enter_context(_quiet())
        probe = partial(make_trainer, config, folder, cluster)  # raises if the hardware is missing
        together = join(cluster, probe)
        known = finished_result(folder, config) if resume == "auto" else None
        folder, finished = gather((folder, known))[0]  # the first process decides
        if finished is not None:
            return finished if is_main_process() else RunResult(folder, steps=finished.steps)
        if config.training.init is not None and find_checkpoint(folder / CHECKPOINTS) is None:
            find_weights(Path(config.training.init))  # raises before data are generated
        if not together:
            probe()
        with (
            message_on_stop(" before training. Nothing is lost: the same command goes on."),
            agreeing(together) as facts,
        ):
            if is_main_process():
                check_memory(config, environment.spec)
                folder = stack.enter_context(enter_run(config, resume))
                write_environment(folder, command)
            loggers = stack.enter_context(make_loggers(config, folder))
            environment, datamodule = _batches(config, environment, folder, report)
            module = _module(config, environment, datamodule, folder)
            parts = (environment, datamodule, folder, report, loggers, cluster)
            fitting = make_fitting(config, *parts)
            if together:
                facts.update(_facts(config, datamodule, folder))
        again = command_for("train", "--resume", str(folder))
        advice = f"What was saved before is whole: make room, then continue with: {again}"
        with explain_write_errors(TrainingError, str(folder), advice):
            fitting.fit(module, datamodule, folder)
            with message_on_stop(f" while scoring. Training is complete; `{again}` scores it."):
                return _score(module, environment, datamodule, fitting, folder, report, loggers)


def _score(
    module: SequenceTrainer,
    environment: Environment,
    datamodule: Batches,
    fitting: Fitting,
    folder: Path,
    report: Report | None,
    loggers: list[Logger],
) -> RunResult:
    """Save the last weights, and score these and the best ones: rollouts in all processes."""
    config, device = module.config, fitting.trainer.strategy.root_device
    result = _summarise(folder, fitting)
    with whole_model(module):
        if is_main_process():
            _save_last(module, folder, fitting)
    if is_main_process():
        if not environment.rolls_out:
            Meter(shown=config.logging.progress).say(
                "Without an environment the model is not scored by rollouts."
            )
        if isinstance(datamodule, TrajectoryDataModule):
            steps = {"last": result.steps, "best": result.best_step}
            weights = (config, datamodule, folder, steps, device)
            with fitting.trainer.precision_plugin.val_step_context():
                result.held_out.extend(measure_weights(*weights))
            result.memory.extend(measure_retention(*weights))
    score_weights(config, environment, result, device, report, loggers)
    return result if is_main_process() else RunResult(folder, steps=result.steps)


def _facts(config: RunConfig, datamodule: Batches, folder: Path) -> Facts:
    """Returns what all processes of a run must have the same."""
    data = datamodule if isinstance(datamodule, TrajectoryDataModule) else None
    fingerprint = "none" if data is None else data.store.fingerprint
    return facts_of(config, fingerprint, find_checkpoint(folder / CHECKPOINTS))


def _batches(
    config: RunConfig, environment: Environment, folder: Path, report: Report | None
) -> tuple[Environment, Batches]:
    """Returns where batches come from, and the environment with what the data tell of it."""
    if not config.is_online:
        recorded = make_datamodule(config, environment, report)
        if is_main_process():
            write_json(folder / HELD_OUT, episodes_held_out(recorded))
        return with_record(with_target(config, environment, recorded), recorded), recorded
    environment = without_target(environment)
    size = round(config.online.data_share * config.training.batch_size)
    if config.data.store is None or not size:
        return environment, OnlineData(config, environment, folder)
    part = replace(config, training=replace(config.training, batch_size=size))
    recorded = make_datamodule(part, environment, report)
    return environment, OnlineData(config, environment, folder, recorded)


def _module(
    config: RunConfig, environment: Environment, datamodule: Batches, folder: Path
) -> SequenceTrainer:
    """Returns the model to train, with the scales of the data and its initial weights."""
    module = SequenceTrainer(config, environment.spec)
    if is_main_process():
        warn_of_horizon(config, environment, module.model.tokenizer.tokens.count)
    data = datamodule.data if isinstance(datamodule, OnlineData) else datamodule
    if data is not None:
        scale_to_data(module.model, data.store, config.data.normalise)
    begin_with = config.training.init
    if begin_with is not None and find_checkpoint(folder / CHECKPOINTS) is None:
        load_initial_weights(module.model, Path(begin_with), config.training.init_missing)
    # What can be earned is told by data alone, not by what is collected online.
    store = datamodule.store if isinstance(datamodule, TrajectoryDataModule) else None
    module.objective.begin(module.model, store)
    return module


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
        best_step=fitting.best_step,
        seconds=throughput.seconds,
        timesteps_per_second=throughput.timesteps / max(throughput.seconds, 1e-9),
    )


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
    """Context that suppresses generic messages of Lightning; its other warnings are shown."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOT_FOR_USERS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
