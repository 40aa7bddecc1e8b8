"""A row of the benchmark's tables, and the model and machine that rows are measured on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from datamodules.trajectories import TrajectoryDataModule
from rate.batch import Batch
from rate.model import SequenceModel
from scripts.benchmarks.configurations import Configuration
from scripts.benchmarks.data import make_store
from scripts.benchmarks.machine import Machine, step_flops
from scripts.benchmarks.timing import Timing
from trainers.config import RunConfig
from trainers.environment import Environment
from trainers.fitting import make_datamodule

OURS = "ours"
PRESET = "ours, as small as the preset"
_COLD = "one step without warm-up"


@dataclass(frozen=True)
class Row:
    """One measurement; None where a value does not apply.

    Attributes:
        part: What was timed.
        configuration: Name of the configuration.
        model: Name of the model.
        variant: `ours`, or the name of a baseline.
        size: Windows in a batch, or episodes rolled out side by side.
        workers: Processes that step simulators.
        precision: In Lightning's notation.
        milliseconds: Of a batch, or of a step of all episodes; the median over the blocks.
        spread: Interquartile range over the blocks, as a share of the median.
        repeats: Steps that were timed.
        per_second: Optimiser steps per second (sampler: batches; rollout: steps of all episodes).
        timesteps_per_second: Environment steps per second.
        flop_utilisation: Share of the machine's own matrix rate in this precision.
        bytes_per_second: Bytes per second of the batches that were sampled or trained on.
        peak_memory: In GiB; see `PeakMemory`.
        data_wait: Share of the time in which training waits for its next batch.
        parameters: Of the model.
        ratio: Speed-up over the baseline, in timesteps per second: the median over the rounds.
        ratio_to_reference: Speed-up over the reference module, likewise.
        ratio_to_published: Speed-up over the published measurement.
        memory_to_published: Peak memory as a share of the published one.
        difference: Largest relative difference of the losses of two paths.
        series: What is varied in a measurement of scale.
        value: The value it is set to.
        note: Anything else.
        ratio_low: Lower quartile of `ratio` over the rounds.
        ratio_high: Upper quartile.
        ratio_to_reference_low: Lower quartile of `ratio_to_reference` over the rounds.
        ratio_to_reference_high: Upper quartile.
        blocks: Timesteps per second, block by block; not in the CSV table.
    """

    part: str
    configuration: str
    model: str
    variant: str = OURS
    size: int | None = None
    workers: int | None = None
    precision: str | None = None
    milliseconds: float | None = None
    spread: float | None = None
    repeats: int | None = None
    per_second: float | None = None
    timesteps_per_second: float | None = None
    flop_utilisation: float | None = None
    bytes_per_second: float | None = None
    peak_memory: float | None = None
    data_wait: float | None = None
    parameters: int | None = None
    ratio: float | None = None
    ratio_to_reference: float | None = None
    ratio_to_published: float | None = None
    memory_to_published: float | None = None
    difference: float | None = None
    series: str | None = None
    value: float | None = None
    note: str = ""
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_to_reference_low: float | None = None
    ratio_to_reference_high: float | None = None
    blocks: tuple[float, ...] = ()

    def timed(self, timing: Timing, timesteps: float, per_step: int = 1) -> Row:
        """This row with the times of a step.

        Args:
            timing: Of one step, as it was timed.
            timesteps: Environment steps in it.
            per_step: How many of what `per_second` counts are in it.
        """
        notes = [self.note, "" if timing.is_warm else _COLD]
        return replace(
            self,
            milliseconds=1e3 * timing.seconds / per_step,
            spread=timing.spread,
            repeats=timing.repeats,
            per_second=per_step / timing.seconds,
            timesteps_per_second=timesteps / timing.seconds,
            note=", ".join(filter(None, notes)),
            blocks=tuple(timesteps / seconds for seconds in timing.blocks),
        )

    @property
    def is_measured(self) -> bool:
        """Whether there is a result; otherwise the note says why not."""
        return self.milliseconds is not None or self.difference is not None


class Skipped(Exception):
    """A measurement that is not possible here; the message says why."""


@dataclass(frozen=True)
class Task:
    """A measurement that is still to be taken.

    Attributes:
        label: What is measured, for progress and messages.
        measure: Takes a budget in seconds and returns a row for each variant.
        shares: Of the total budget, relative to other tasks.
    """

    label: str
    measure: Callable[[float], list[Row]]
    shares: int = 1


@dataclass(frozen=True)
class Subject:
    """A model on a configuration, on a machine.

    Attributes:
        configuration: The shapes, with the model.
        machine: Where it runs.
        folder: For synthetic data and the files of training.
        batch_size: Windows in a batch; None for the configuration's own.
        num_envs: Episodes side by side; None for the configuration's own.
        settings: Settings from the command line: dotted names to values.
        episodes: Of the synthetic data; None for as many as two batches need.
        workers: Processes that step simulators; None for as many as in evaluation.
    """

    configuration: Configuration
    machine: Machine
    folder: Path
    batch_size: int | None = None
    num_envs: int | None = None
    settings: dict[str, Any] | None = None
    episodes: int | None = None
    workers: int | None = None

    @property
    def name(self) -> str:
        """Configuration and model."""
        return f"{self.configuration.name} {self.configuration.own}"

    @property
    def device(self) -> torch.device:
        return self.machine.device

    @property
    def batch(self) -> int:
        """Windows in a batch."""
        own = self.configuration
        return self.batch_size or (
            own.cpu_batch_size if self.device.type == "cpu" else own.batch_size
        )

    @property
    def rows(self) -> int:
        """Episodes side by side."""
        own = self.configuration
        return self.num_envs or (own.cpu_num_envs if self.device.type == "cpu" else own.num_envs)

    @cached_property
    def store(self) -> Path:
        """Synthetic data, written at first use; models with the same data share them."""
        spec, length = self.configuration.spec, self.configuration.episode_length
        episodes = self.episodes or max(2 * self.batch * self.configuration.window // length, 64)
        path = self.folder / f"{spec.name}-{episodes}x{length}"
        if not path.exists():
            make_store(path, spec, episodes, length)
        return path

    @cached_property
    def run(self) -> RunConfig:
        """The run whose training is measured."""
        return self.configuration.run_config(
            self.store, self.device.type, self.batch, self.settings or {}
        )

    @property
    def environment(self) -> Environment:
        """The environment record that training takes; nothing is rolled out in it."""
        return Environment(self.configuration.spec)

    def datamodule(self) -> TrajectoryDataModule:
        """The data module on the synthetic data, with epochs of the published length."""
        datamodule = make_datamodule(self.run, self.environment)
        datamodule.batches_per_epoch = self.configuration.epoch
        return datamodule

    def batches(self, count: int = 2) -> list[Batch]:
        """Batches on the device, as the model takes them."""
        datamodule = self.datamodule()
        sampler = datamodule.make_sampler(None)
        return [
            datamodule.on_after_batch_transfer(sampler.batch(index).to(self.device), 0)
            for index in range(count)
        ]

    def model(self) -> SequenceModel:
        """A new model on the device."""
        spec = self.configuration.spec
        model = SequenceModel(self.run.model, spec.observation_space, spec.action_space)
        return model.to(self.device)

    @cached_property
    def flops(self) -> float | None:
        """FLOPs of a training step; None where PyTorch cannot count them."""
        own = self.configuration
        try:
            return step_flops(self.run.model, own.spec, own.window, self.batch)
        except NotImplementedError:  # recurrent cells have no kernels for tensors without contents
            return None

    def row(self, part: str, variant: str = OURS, **values: Any) -> Row:
        """A row without times."""
        values = {"size": self.batch, **values}
        return Row(part, self.configuration.name, self.configuration.own, variant, **values)

    def with_rates(self, row: Row, timing: Timing, size: int) -> Row:
        """A row with the times of a batch of `size` bytes; in training also its share of limits."""
        row = row.timed(timing, self.batch * self.configuration.window)
        row = replace(row, bytes_per_second=size / timing.seconds)
        if row.precision is None:
            return row
        if self.flops is not None:
            limit = self.machine.matrix_rate(row.precision)
            row = replace(row, flop_utilisation=self.flops / timing.seconds / limit)
        published = self.configuration.published_for(self.device.type, self.batch)
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

    def failed(self, part: str, reasons: Mapping[str, str]) -> list[Row]:
        """Rows of variants that do not work, with the reasons as notes."""
        return [self.row(part, variant, note=reason) for variant, reason in reasons.items()]


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's hints about workers, intervals and loggers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
