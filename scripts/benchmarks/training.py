"""Timing of training: steps, in turns with baselines; epochs; and whether the paths agree."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from rate.architecture import SEGMENTS, WINDOW
from rate.batch import Batch
from scripts.benchmarks.data import batch_bytes
from scripts.benchmarks.eager import RATE
from scripts.benchmarks.public import PublicTraining
from scripts.benchmarks.rows import OURS, Row, Skipped, Subject, quiet
from scripts.benchmarks.timing import Step, Turns
from trainers.fitting import make_fitting
from trainers.loggers import make_loggers
from trainers.sequence import SequenceTrainer

EAGER = "eager float32, a step per segment"
REFERENCE = "reference module"
# Settings that turn every fast path off, to check that all paths compute the same losses.
PLAIN: dict[str, Any] = {
    "training.precision": "32-true",
    "training.compile": "never",
    "training.cuda_graphs": "never",
    "training.checkpoint_segments": False,
}
# With a warm-up of the learning rate, the weights would hardly change in so few steps.
_CHECKED = {"optimizer.warmup_steps": 0, "training.log_every_n_steps": 1}
_NOISE = ("dropout", "attention_dropout", "memory_noise")  # paths may draw other masks from a seed
_AGREEMENT_STEPS, _AGREEMENT_BATCH = 5, 16


class TurnsInLoop(Callback):
    """Times the batches of Lightning's loop in turns with other contestants.

    The steps of the others are taken between two batches of the loop.

    Args:
        turns: Has the loop as its last contestant, without a function.
    """

    def __init__(self, turns: Turns) -> None:
        self._steps = turns.steps()
        self._turns = turns
        self._began = self._ended = self._waited = self._total = 0.0
        self.advance()

    @property
    def data_wait(self) -> float:
        """Share of the time between the end of a step and the beginning of the next."""
        return self._waited / self._total if self._total else 0.0

    def advance(self) -> bool:
        """Takes the steps of the others; returns whether the loop has to take one."""
        return next(self._steps, True) is None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._turns.restart()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._turns.is_warm:
            self._waited += self._began - self._ended
            self._total += time.perf_counter() - self._ended
        trainer.should_stop = not self.advance()
        self._ended = time.perf_counter()


class Losses(Callback):
    """Records the loss of every optimiser step, and stops training after a few."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(cast("SequenceTrainer", pl_module).logged["loss"])
        trainer.should_stop = len(self.values) >= _AGREEMENT_STEPS


class Cycle:
    """An epoch without end of a few batches, for Lightning."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return 1_000_000

    def __iter__(self) -> Iterator[Batch]:
        return itertools.cycle(self._batches)


def time_step(
    subject: Subject,
    budget: float,
    reference: type[nn.Module] | None = None,
    baseline: bool = True,
) -> list[Row]:
    """Training steps on batches that are on the device: Lightning's loop without loggers.

    Args:
        subject: What is trained.
        budget: Seconds.
        reference: A second baseline with the constructor and forward of the public model.
        baseline: Whether to time baselines at all, by the published loop, in turns with ours.
    """
    trainings: dict[str, PublicTraining] = {}

    def build(name: str, model_class: type[nn.Module]) -> Step:
        training = PublicTraining(model_class, subject.configuration, subject.device)
        trainings[name] = training
        batches = itertools.cycle([training.prepare(batch) for batch in subject.batches(1)])
        return lambda: training.step(next(batches))

    baselines = _baselines(subject, reference) if baseline else {}
    builds = {name: partial(build, name, kind) for name, kind in baselines.items()}
    turns = Turns({**builds, OURS: None}, subject.device, budget)
    loop = TurnsInLoop(turns)
    with quiet():
        module = SequenceTrainer(subject.run, subject.configuration.spec)
        batches = subject.batches()
        _bare_trainer(subject, loop).fit(module, train_dataloaders=Cycle(batches))
    rows = subject.failed("step", turns.failed)
    for name, timing in turns.timings().items():
        is_ours = name == OURS
        row = subject.row(
            "step",
            name,
            precision=subject.run.training.precision if is_ours else "32-true",
            peak_memory=turns.memory[name],
            parameters=_count(module if is_ours else trainings[name].model),
            note=", ".join(module.fast_paths) if is_ours else "",
        )
        # A baseline's batch is all float32. It has an optimiser step for every segment.
        size = batch_bytes(batches[0] if is_ours else trainings[name].prepare(batches[0]))
        row = subject.with_rates(row, timing, size)
        if not is_ours:
            row = replace(row, per_second=subject.configuration.segments / timing.seconds)
        rows.append(row)
    return rows


def _baselines(subject: Subject, reference: type[nn.Module] | None) -> dict[str, type[nn.Module]]:
    """What the training step of a model is compared with; nothing for other backbones."""
    if subject.configuration.model.backbone not in (SEGMENTS, WINDOW):
        return {}
    return {EAGER: RATE, **({REFERENCE: reference} if reference is not None else {})}


def time_fit(subject: Subject, budget: float) -> list[Row]:
    """Epochs of training as users run it: data from the store, metrics.csv and TensorBoard."""
    folder = subject.folder / "run"
    folder.mkdir()
    turns = Turns({OURS: None}, subject.device, budget)
    loop = TurnsInLoop(turns)
    try:
        with quiet(), make_loggers(subject.run, folder) as loggers:
            datamodule = subject.datamodule()
            fitting = make_fitting(
                subject.run, subject.environment, datamodule, folder, None, loggers
            )
            fitting.trainer.callbacks.append(loop)  # type: ignore[attr-defined]
            module = SequenceTrainer(subject.run, subject.configuration.spec)
            fitting.fit(module, datamodule, folder)
    finally:
        shutil.rmtree(folder)
    row = subject.row(
        "fit",
        precision=subject.run.training.precision,
        peak_memory=turns.memory[OURS],
        data_wait=loop.data_wait,
        note=f"{subject.configuration.epoch} batches an epoch",
    )
    size = batch_bytes(datamodule.make_sampler(None).batch(0))
    return [subject.with_rates(row, turns.timings()[OURS], size)]


def check_agreement(subject: Subject, _: float) -> list[Row]:
    """Compares the losses of a few steps on the path that is timed and on the plain one.

    Raises:
        Skipped: If the path that is timed is the plain one.
    """
    losses = []
    subject = replace(subject, batch_size=min(subject.batch, _AGREEMENT_BATCH))
    model = subject.run.model
    still = {f"model.{name}": 0.0 for name in _NOISE if hasattr(model, name)}
    paths = [
        replace(subject, settings={**(subject.settings or {}), **_CHECKED, **still, **settings})
        for settings in ({}, PLAIN)
    ]
    if paths[0].run == paths[1].run:
        raise Skipped("the path that is timed here is the plain one")
    for path in paths:
        noted = Losses()
        with quiet():
            module = SequenceTrainer(path.run, path.configuration.spec)
            trainer = _bare_trainer(path, noted)
            trainer.fit(module, train_dataloaders=Cycle(path.batches()))
        losses.append(np.array(noted.values))
    fast, plain = losses
    row = subject.row(
        "agreement",
        precision=subject.run.training.precision,
        difference=float(np.abs(fast / plain - 1).max()),
        note=f"losses of {_AGREEMENT_STEPS} steps against the plain float32 path",
    )
    return [row]


def _bare_trainer(subject: Subject, callback: Callback) -> Trainer:
    training = subject.run.training
    return Trainer(
        accelerator=training.accelerator,
        devices=1,
        precision=training.precision,  # type: ignore[arg-type]
        max_epochs=-1,
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=subject.folder,
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
