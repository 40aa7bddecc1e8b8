"""A whole training run: data, training, final evaluation, and a folder that holds it all."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from datamodules.disk_errors import explain_write_errors
from datamodules.spawning import leave_if_started_again
from rate.advice import command as command_for
from rate.errors import ConfigError
from rate.files import write_json
from rate.stopping import stop_signals, told_when_stopped
from rate.trust import remember_path
from rate.weights import CHECKPOINTS, SavedModel, load_model, save_model
from trainers import trust
from trainers.callbacks import Report
from trainers.callbacks.checkpoint import find_checkpoint
from trainers.config import Resume, RunConfig
from trainers.config_files import load_config_file
from trainers.environment import Environment, Length, at_length
from trainers.errors import TrainingError
from trainers.fitting import (
    Fitting,
    make_datamodule,
    make_fitting,
    make_trainer,
    with_record,
    with_target,
)
from trainers.held_out import episodes_held_out, measure_weights
from trainers.initial_weights import find_weights, load_initial_weights
from trainers.launch import is_main_process, launched
from trainers.loggers import log_scores, make_loggers
from trainers.memory_check import check_memory
from trainers.meter import Meter
from trainers.registry import check_run, environment_of_run
from trainers.rollout import OnProgress, evaluate
from trainers.runs import (
    CONFIG,
    EVALUATION,
    HELD_OUT,
    enter_run,
    run_folder,
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
        held_out: The last and the best weights on held-out steps: `which`, `step`, and what
            `trainers.held_out.Account.row` has; none where no episode is held out.
    """

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    best_step: int | None = None
    seconds: float = 0.0
    timesteps_per_second: float = 0.0
    held_out: list[dict[str, Any]] = field(default_factory=list)


def train(
    config: RunConfig,
    resume: Resume = None,
    command: str | None = None,
    report: Report | None = None,
) -> RunResult:
    """Train a model and evaluate it on held-out seeds.

    Args:
        config: The run.
        resume: The folder of a run to continue instead of starting anew. `auto` continues the run
            of that name if there is one, starts it if not, and returns the scores of one that has
            finished.
        command: What was typed, for `environment.txt`.
        report: Told of every step: what is going on ("training", "scoring at 900"), how many
            steps of it are done, and how many there are.

    Returns:
        The scores. Processes other than the first one evaluate nothing, and return none.

    Raises:
        ConfigError: If the run cannot be started with these settings.
        DatasetError: If the data do not fit.
        TrainingError: If training cannot go on.
        Interrupted: If it was stopped by a signal while it trained; what is saved, it says.
        Stopped: If it was stopped before or after that (a `KeyboardInterrupt`).
    """
    leave_if_started_again()
    if not isinstance(resume, Path):  # whose environment is a file's
        trust.remember(config.environment, config.env)
        for path in (config.training.objective, config.model.backbone, config.model.tokenizer):
            remember_path(path)
        remember_path(config.data.reading.format or "")
    check_run(config)
    environment = environment_of_run(config)
    folder = run_folder(config, resume)
    with ExitStack() as stack:
        stack.enter_context(stop_signals())
        cluster = stack.enter_context(launched(config.training))
        stack.enter_context(_threads(config.training.threads))
        stack.enter_context(_quiet())
        if resume == "auto" and (finished := _finished(folder, config)) is not None:
            return finished if is_main_process() else RunResult(folder, steps=finished.steps)
        if config.training.init is not None and find_checkpoint(folder / CHECKPOINTS) is None:
            find_weights(Path(config.training.init))  # refused before data are made
        make_trainer(config, folder, cluster)  # refuses what this machine has not
        if is_main_process():
            check_memory(config, environment.spec)
            folder = stack.enter_context(enter_run(config, resume))
            write_environment(folder, command)
        loggers = stack.enter_context(make_loggers(config, folder))
        with told_when_stopped(" before training. Nothing is lost: the same command goes on."):
            datamodule = make_datamodule(config, environment, report)
            if is_main_process():
                write_json(folder / HELD_OUT, episodes_held_out(datamodule))
            environment = with_record(with_target(config, environment, datamodule), datamodule)
            module = SequenceTrainer(config, environment.spec)
            scale_to_data(module.model, datamodule.store, config.data.normalise)
            begin_with = config.training.init
            if begin_with is not None and find_checkpoint(folder / CHECKPOINTS) is None:
                load_initial_weights(module.model, Path(begin_with), config.training.init_missing)
            parts = (environment, datamodule, folder, report, loggers, cluster)
            fitting = make_fitting(config, *parts)
        again = command_for("train", "--resume", str(folder))
        advice = f"What was saved before is whole: make room, then continue with: {again}"
        with explain_write_errors(TrainingError, str(folder), advice):
            fitting.fit(module, datamodule, folder)
            if not is_main_process():
                return RunResult(folder, steps=fitting.trainer.global_step)
            result, device = _summarise(folder, fitting), fitting.trainer.strategy.root_device
            with told_when_stopped(f" while scoring. Training is complete; `{again}` scores it."):
                _save_last(module, folder, fitting)
                if not environment.rolls_out:
                    Meter(shown=config.logging.progress).say(
                        "Without an environment the model is not scored by rollouts."
                    )
                with fitting.trainer.precision_plugin.val_step_context():
                    steps = {"last": result.steps, "best": result.best_step}
                    found = measure_weights(config, datamodule, folder, steps, device)
                result.held_out.extend(found)
                _evaluate(config, environment, result, device, report, loggers)
    return result


def _finished(folder: Path, config: RunConfig) -> RunResult | None:
    """What a run came to that has been trained and scored with these settings before."""
    try:
        before = load_config_file(folder / CONFIG)
        known = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
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
        )
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return None


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


def _evaluate(
    config: RunConfig,
    environment: Environment,
    result: RunResult,
    device: torch.device,
    report: Report | None,
    loggers: Sequence[Logger],
) -> None:
    """Score the last and the best weights on the held-out seeds; log that, and write it.

    Where they were trained: a model that wants a GPU wants it here as well. `evaluation.json` is
    written last: a run that has it has finished.
    """
    settings = config.evaluation
    lengths = settings.lengths if environment.rolls_out else []
    scores: dict[int, list[dict[str, Any]]] = {}
    for which, step in (("last", result.steps), ("best", result.best_step)):
        if step is None:
            continue
        if step not in scores:  # where the best weights are the last ones, once is enough
            saved = load_model(result.folder / CHECKPOINTS / which)
            with Meter(shown=config.logging.progress) as meter:
                scores[step] = evaluate(
                    saved.model.to(device),
                    environment,
                    settings,
                    lengths=lengths,
                    first_seed=settings.test_seed,
                    on_progress=_for_rollouts(report, meter, which),
                    trained_range=saved.trained_range,
                )
        for row in scores[step]:
            known = {"environment": config.environment, "model": config.name}
            result.rows.append({**known, "which": which, "step": step, **row})
    target = settings.target_return
    content = {
        "environment": config.environment,
        "environment_options": environment.spec.options,
        "seed": config.training.seed,
        "first_episode_seed": settings.test_seed,
        "last_episode_seed": settings.test_seed + settings.episodes - 1,
        "target_return": environment.spec.target_return if target is None else target,
        "trained_range": saved.trained_range,
        "evaluation": asdict(settings),
        "trained_steps": result.steps,
        "training_seconds": round(result.seconds, 3),
        "timesteps_per_second": round(result.timesteps_per_second, 1),
        "rows": result.rows,
        "held_out": result.held_out,
    }
    try:
        log_scores(loggers, result.rows, result.steps)
        write_json(result.folder / EVALUATION, content)
    except OSError:
        told = "; ".join(
            f"{row['which']} at {row['length']}: success {row['success']}, return {row['return']}"
            for row in result.rows
        )
        warnings.warn(f"The scores are not saved: {told}.", stacklevel=2)
        raise


def _for_rollouts(report: Report | None, meter: Meter, which: str) -> OnProgress:
    def tell(length: Length, share: float) -> None:
        meter.show(f"scoring the {which} weights at {at_length(length)}", share, 1)
        if report is not None:
            report(f"scoring at {at_length(length)}", round(100 * share), 100)

    return tell


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
