"""Timing of training: the sampler, the step, a whole epoch; and their baselines."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from datamodules.store import Store
from rate.batch import Batch
from scripts.benchmarks.baselines import per_sample_batch
from scripts.benchmarks.configurations import Published
from scripts.benchmarks.data import batch_bytes
from scripts.benchmarks.eager import RATE
from scripts.benchmarks.public import PublicTraining
from scripts.benchmarks.rows import Row, Skipped, Subject, Task, quiet
from scripts.benchmarks.timing import PeakMemory, Stopwatch, Timing, time_calls
from trainers.fitting import make_fitting
from trainers.loggers import make_loggers
from trainers.sequence import SequenceTrainer

PER_SAMPLE = "per-sample Python"
EAGER = "eager float32, a step per segment"
REFERENCE = "reference module"
# What turns every fast path off, for the check that all paths learn the same.
PLAIN: dict[str, Any] = {
    "training.precision": "32-true",
    "training.compile": "never",
    "training.cuda_graphs": "never",
    "training.checkpoint_segments": False,
}
# Two paths may draw different masks from one seed. With a warm-up, weights would hardly move.
_CHECKED = {"optimizer.warmup_steps": 0, "training.log_every_n_steps": 1}
_NOISE = ("dropout", "attention_dropout", "memory_noise")  # as far as a backbone has them
_AGREEMENT_STEPS, _AGREEMENT_BATCH = 5, 16
_PER_SAMPLE_BATCH = 16  # each window costs as much as the next


class Laps(Callback):
    """Times training batch by batch, and stops it when that is enough."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._began = self._ended = self._waited = self._total = 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time that lies between the end of a step and the begin of the next."""
        return self._waited / self._total

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        counts = self._watch.is_warm
        trainer.should_stop = self._watch.tick()
        now = time.perf_counter()
        if counts:
            self._waited += self._began - self._ended
            self._total += now - self._ended
        self._ended = now


class Losses(Callback):
    """Notes the loss of every optimiser step, and stops training after a few."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(cast("SequenceTrainer", pl_module).logged["loss"])
        trainer.should_stop = len(self.values) >= _AGREEMENT_STEPS


class Cycle:
    """The same batches again and again, for Lightning."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return 1_000_000

    def __iter__(self) -> Iterator[Batch]:
        return itertools.cycle(self._batches)


def sampler_tasks(subject: Subject) -> Iterator[Task]:
    """Making batches and bringing them to the device."""
    yield Task(PER_SAMPLE, lambda budget: _per_sample(subject, budget))
    yield Task("ours", lambda budget: time_sampler(subject, budget))


def time_sampler(subject: Subject, budget: float) -> Row:
    """Our batches, timed one by one."""
    datamodule = subject.datamodule()
    datamodule.set_data_device(subject.device)
    sampler, numbers = datamodule.make_sampler(None), itertools.count()

    def call() -> None:
        batch = sampler.batch(next(numbers)).to(subject.device)
        datamodule.on_after_batch_transfer(batch, 0)

    timing = time_calls(call, subject.device, budget)
    return _batches_row(subject.row("sampler"), subject, timing, sampler.batch(0))


def _per_sample(subject: Subject, budget: float) -> Row:
    subject = replace(subject, batch_size=min(subject.batch, _PER_SAMPLE_BATCH))
    store, rng = Store.open(subject.store), np.random.default_rng(0)

    def call() -> Batch:
        batch = per_sample_batch(store, subject.batch, subject.configuration.window, rng)
        return batch.to(subject.device)

    timing = time_calls(call, subject.device, budget)
    return _batches_row(subject.row("sampler", PER_SAMPLE), subject, timing, call())


def step_tasks(subject: Subject, reference: type[nn.Module] | None) -> Iterator[Task]:
    """Training steps on batches that are on the device already."""
    yield Task(EAGER, lambda budget: _public_step(subject, EAGER, RATE, budget))
    if reference is not None:
        yield Task(REFERENCE, lambda budget: _public_step(subject, REFERENCE, reference, budget))
    yield Task("ours", lambda budget: time_step(subject, budget))


def _public_step(
    subject: Subject, variant: str, model_class: type[nn.Module], budget: float
) -> Row:
    peak = PeakMemory(subject.device)
    training = PublicTraining(model_class, subject.configuration, subject.device)
    batches = [training.prepare(batch) for batch in subject.batches(1)]
    size = batch_bytes(batches[0])
    series = itertools.cycle(batches)
    timing = time_calls(lambda: training.step(next(series)), subject.device, budget)
    row = subject.row(
        "step",
        variant,
        precision="32-true",
        peak_memory=peak.gib,
        parameters=sum(parameter.numel() for parameter in training.model.parameters()),
    )
    steps = subject.configuration.segments
    row = row.timed(timing, subject.batch * subject.configuration.window, steps)
    row = replace(row, milliseconds=1e3 * timing.seconds)  # of a batch, not of one of its steps
    return _with_rates(row, subject, timing, size)


def time_step(subject: Subject, budget: float) -> Row:
    """The project's own module in Lightning's loop, without loggers and checkpoints."""
    watch = Stopwatch(subject.device, budget)
    peak = PeakMemory(subject.device)
    with quiet():
        module = SequenceTrainer(subject.run, subject.configuration.spec)
        batches = subject.batches()
        _bare_trainer(subject, Laps(watch)).fit(module, train_dataloaders=Cycle(batches))
    row = subject.row(
        "step",
        precision=subject.run.training.precision,
        peak_memory=peak.gib,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        note=", ".join(module.fast_paths),
    )
    return _batches_row(row, subject, watch.timing(), batches[0])


def fit_tasks(subject: Subject) -> Iterator[Task]:
    """Epochs of training as users run it: data from the store, metrics.csv and TensorBoard."""
    yield Task("ours", lambda budget: _fit(subject, budget))


def _fit(subject: Subject, budget: float) -> Row:
    folder = subject.folder / "run"
    folder.mkdir()
    watch = Stopwatch(subject.device, budget)
    laps = Laps(watch)
    try:
        peak = PeakMemory(subject.device)
        with quiet(), make_loggers(subject.run, folder) as loggers:
            datamodule = subject.datamodule()
            fitting = make_fitting(
                subject.run, subject.environment, datamodule, folder, None, loggers
            )
            fitting.trainer.callbacks.append(laps)  # type: ignore[attr-defined]
            module = SequenceTrainer(subject.run, subject.configuration.spec)
            fitting.fit(module, datamodule, folder)
    finally:
        shutil.rmtree(folder)
    row = subject.row(
        "fit",
        precision=subject.run.training.precision,
        peak_memory=peak.gib,
        data_wait=laps.data_wait,
        note=f"{subject.configuration.epoch} batches an epoch",
    )
    return _batches_row(row, subject, watch.timing(), datamodule.make_sampler(None).batch(0))


def agreement_tasks(subject: Subject) -> Iterator[Task]:
    """Whether the path that is timed learns what the plain one does."""
    yield Task("ours", lambda _: _agreement(subject))


def _agreement(subject: Subject) -> Row:
    """The losses of the first steps on both paths.

    Raises:
        Skipped: If the plain path is the one that is timed.
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
    return subject.row(
        "agreement",
        precision=subject.run.training.precision,
        difference=float(np.abs(fast / plain - 1).max()),
        note=f"losses of {_AGREEMENT_STEPS} steps against the plain float32 path",
    )


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


def _batches_row(row: Row, subject: Subject, timing: Timing, batch: Batch) -> Row:
    row = row.timed(timing, subject.batch * subject.configuration.window)
    return _with_rates(row, subject, timing, batch_bytes(batch))


def _with_rates(row: Row, subject: Subject, timing: Timing, size: int) -> Row:
    """A row with its bytes a second, and where it learns its share of the machine's rate."""
    row = replace(row, bytes_per_second=size / timing.seconds)
    if row.precision is None:
        return row
    limit = subject.machine.matrix_rate(row.precision)
    row = replace(row, flop_utilisation=subject.flops / timing.seconds / limit)
    published = _published(subject)
    if published is None:
        return row
    memory = None
    if row.peak_memory and published.memory:
        memory = row.peak_memory / published.memory
    return replace(
        row,
        ratio_to_published=(row.timesteps_per_second or 0.0) / published.timesteps_per_second,
        memory_to_published=memory,
    )


def _published(subject: Subject) -> Published | None:
    """What the published table has for this kind of device, model and batch."""
    own = subject.configuration
    for published in own.published:
        size = published.batch_size or own.batch_size
        if published.device == subject.device.type and size == subject.batch:
            return published
    return None
