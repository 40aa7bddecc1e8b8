"""The Lightning trainer of a run: its callbacks, loggers and checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from datamodules.eligible import least_return
from datamodules.store import Store
from datamodules.trajectories import TrajectoryDataModule
from rate.envs.recorded import differences
from rate.errors import ConfigError
from rate.stopping import Stopped
from rate.weights import CHECKPOINTS
from trainers.callbacks import (
    Curriculum,
    HeldOutMetrics,
    OnlineMetrics,
    Progress,
    Report,
    Reporter,
    SafeCheckpoint,
    SafeCheckpointIO,
    SelectionRollouts,
    Throughput,
    preparing,
)
from trainers.callbacks.checkpoint import find_checkpoint
from trainers.checks import finite
from trainers.config import RunConfig
from trainers.data_sets import open_data
from trainers.data_warnings import warn_of_data
from trainers.environment import Environment
from trainers.errors import Interrupted
from trainers.gathering import explain_lost_processes
from trainers.launch import is_child, is_main_process
from trainers.loggers import rewind
from trainers.randomness import deterministic
from trainers.sequence import SequenceTrainer
from trainers.sharding import ShardedStrategy
from trainers.sources.online import OnlineData
from trainers.stopping import StopRequest

Batches = TrajectoryDataModule | OnlineData


def make_datamodule(
    config: RunConfig, environment: Environment, report: Report | None = None
) -> TrajectoryDataModule:
    """Returns the data module of a run; the environment's data set is generated at first use.

    Warns if the target return is outside the range of the data's returns, and if steps of the data
    are never trained on.
    """
    data, training = config.data, config.training
    with preparing(config.logging.progress, report) as tell:
        if data.store is None:
            store = environment.prepare_data(data, config.max_length, tell)
        else:
            store = open_data(data, environment.spec, tell).path
    datamodule = TrajectoryDataModule(
        store,
        batch_size=training.batch_size,
        context_length=config.model.context_length,
        segments=training.segments,
        seed=training.seed,
        mode=data.window,
        spec=environment.spec,
        min_return=_least_return(config, Path(store)),
        min_length=data.min_length,
        sampling=data.sampling,
        with_privileged_state=config.loss.wants_privileged_state,
        with_last_observations=config.loss.bootstraps,
        data_device=training.data_device,
        held_out=data.held_out,
    )
    target = config.evaluation.target_return
    if target is None:
        target = with_target(config, environment, datamodule).spec.target_return
    finite(f"the return to ask for, the best of {datamodule.store.path},", target)
    warn_of_data(config, environment, datamodule, target)
    return datamodule


def _least_return(config: RunConfig, store: Path) -> float | None:
    """Returns the least return of an episode that is trained on; None has no limit."""
    share = config.data.best_share
    return config.data.min_return if share is None else least_return(Store.open(store), share)


def trained_range(
    config: RunConfig, datamodule: TrajectoryDataModule | None
) -> tuple[float, float] | None:
    """Returns the minimum and maximum return-to-go in training; None if the model uses none."""
    if not config.model.condition_on_return or datamodule is None:
        return None
    last_stage = datamodule.segments if config.curriculum.enabled else None
    return datamodule.make_sampler(last_stage).returns_to_go_range


def with_target(
    config: RunConfig, environment: Environment, datamodule: TrajectoryDataModule
) -> Environment:
    """Returns the environment with its own target return or the best return of the data.

    The latter is used with `evaluation.target_from_data`, or if it has no target of its own.
    """
    if not (config.evaluation.target_from_data or isnan(environment.spec.target_return)):
        return environment
    best = datamodule.held_out.rest_return_range[1]
    return replace(environment, spec=replace(environment.spec, target_return=best))


def without_target(environment: Environment) -> Environment:
    """Returns the environment with a target return of 0 if it has none: no model is told it."""
    if not isnan(environment.spec.target_return):
        return environment
    return replace(environment, spec=replace(environment.spec, target_return=0.0))


def with_record(environment: Environment, datamodule: TrajectoryDataModule) -> Environment:
    """Returns the environment with the record of the environment that its data come from.

    Warns of differences between the two.
    """
    spec = replace(environment.spec, recorded=datamodule.store.spec.recorded)
    if is_main_process():
        for sentence in differences(spec):
            warnings.warn(f"{datamodule.store.path}: {sentence}.", stacklevel=2)
    return replace(environment, spec=spec)


@dataclass(frozen=True)
class Fitting:
    """A configured trainer, and the callbacks whose results are read after training."""

    trainer: Trainer
    throughput: Throughput
    selection: SelectionRollouts
    held_out: HeldOutMetrics | None
    checkpoints: SafeCheckpoint

    @property
    def best_step(self) -> int | None:
        """Optimiser step of the best weights, by rollouts or by held-out loss, if there are any."""
        by_rollouts = self.selection.best_step
        if by_rollouts is not None or self.held_out is None:
            return by_rollouts
        return self.held_out.best_step

    def fit(self, module: SequenceTrainer, datamodule: Batches, folder: Path) -> None:
        """Train from the run's last checkpoint, or from the start if there is none.

        Raises:
            TrainingError: If training cannot continue.
            Interrupted: If a signal stopped it; the message names the checkpoint.
        """
        checkpoint = find_checkpoint(folder / CHECKPOINTS)
        if checkpoint is None:
            rewind(self.trainer.loggers, 0)  # rows of a run that had no checkpoint yet
        try:
            with self.checkpoints.stop.installed():
                self._fit(module, datamodule, checkpoint)
        except Interrupted as interrupted:
            if not is_main_process():  # the first process reports it
                raise SystemExit(0 if is_child() else 128 + interrupted.number) from None
            raise

    def _fit(self, module: SequenceTrainer, datamodule: Batches, checkpoint: Path | None) -> None:
        try:
            device = self.trainer.strategy.root_device
            restoring = self.checkpoints.restoring(checkpoint)
            with explain_lost_processes(), deterministic(device), restoring:
                self.trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint)
            if self.selection.is_pending:  # rollouts of the last step, which is not repeated
                self.selection.catch_up(self.trainer, module)
                self.selection.teardown(self.trainer, module, "fit")
                with self.checkpoints.stop.saving():
                    self.checkpoints.save(self.trainer)
                self.checkpoints.stop.check()
        except (SystemExit, Stopped):  # Lightning turns Stopped into SystemExit
            if self.checkpoints.stop.number is None:
                raise
            raise self.checkpoints.interrupted("at once") from None


def make_fitting(
    config: RunConfig,
    environment: Environment,
    datamodule: Batches,
    folder: Path,
    report: Report | None,
    loggers: list[Logger],
    cluster: ClusterEnvironment | None = None,
) -> Fitting:
    """Returns the trainer of a run with its callbacks.

    Args:
        config: The run.
        environment: The environment of the rollouts.
        datamodule: The batches.
        folder: The run folder.
        report: Called after every step.
        loggers: The loggers of metrics.
        cluster: The processes that train together; None leaves it to Lightning.

    Raises:
        ConfigError: If the settings do not work on this machine.
    """
    training, evaluation, checkpoints = config.training, config.evaluation, folder / CHECKPOINTS
    throughput = Throughput(training.log_every_n_steps)
    progress = Progress(training.max_steps) if config.logging.progress else None
    stop = StopRequest()
    recorded = datamodule if isinstance(datamodule, TrajectoryDataModule) else None
    best, seen = checkpoints / "best", trained_range(config, recorded)
    selection = SelectionRollouts(
        environment,
        best,
        evaluation.every_n_steps if environment.rolls_out and evaluation.selection_lengths else 0,
        training.max_steps,
        seen,
        on_progress=None if progress is None else progress.show_rollout,
        stop=stop,
    )
    # Order matters: throughput stops its clock first, checkpoints are saved after all others.
    callbacks: list[Callback] = [throughput, selection]
    held_out = None
    if recorded is not None:
        every = evaluation.held_out_every_n_steps
        # Chosen by rollouts, or by predictions of actions: no measure of what values are worth.
        chosen = None if environment.rolls_out or config.loss.bootstraps else best
        held_out = HeldOutMetrics(recorded, every, training.max_steps, chosen, seen)
        callbacks.append(held_out)
    else:
        callbacks.append(OnlineMetrics(training.log_every_n_steps, training.max_steps))
    if progress is not None:
        callbacks.append(progress)
    if report is not None:
        callbacks.append(Reporter(training.max_steps, report))
    if config.curriculum.enabled and recorded is not None:
        callbacks.append(Curriculum(config.curriculum, recorded))
    every = training.checkpoint_every_n_steps
    saving = SafeCheckpoint(checkpoints, every, training.max_steps, stop)
    callbacks.append(saving)
    trainer = make_trainer(config, folder, cluster, loggers, callbacks)
    return Fitting(trainer, throughput, selection, held_out, saving)


def make_trainer(
    config: RunConfig,
    folder: Path,
    cluster: ClusterEnvironment | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Returns the Lightning trainer of a run.

    Args:
        config: The run.
        folder: The run folder.
        cluster: The processes that train together; None leaves it to Lightning.
        loggers: The loggers of metrics.
        callbacks: The callbacks.

    Raises:
        ConfigError: If the settings do not work on this machine.
    """
    training, plugins = config.training, [] if cluster is None else [cluster]
    try:
        return Trainer(
            accelerator=training.accelerator,
            devices=training.devices,
            num_nodes=training.nodes,
            strategy=ShardedStrategy() if training.is_sharded else training.strategy,
            precision=training.precision,  # type: ignore[arg-type]
            max_steps=training.max_steps,
            max_epochs=-1,
            logger=list(loggers),
            callbacks=list(callbacks),
            plugins=[SafeCheckpointIO(), *plugins],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ImportError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"This machine cannot train with training.accelerator={training.accelerator}, "
            f"devices={training.devices}, strategy={training.strategy}, "
            f"precision={training.precision}: {reason}"
        ) from error
