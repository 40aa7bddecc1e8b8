"""A measurement, and what has to be known to take one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
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


@dataclass(frozen=True)
class Row:
    """One measurement. What does not apply to it is None.

    Attributes:
        part: What was timed.
        configuration: On which shapes.
        model: The model's name.
        variant: `ours`, or the name of a baseline.
        size: Windows in a batch, or episodes rolled out side by side.
        workers: Processes that step simulators.
        precision: As Lightning calls it.
        milliseconds: Of a batch, or of a step of all episodes; the median of many.
        spread: Distance of the quartiles, as a share of the median.
        repeats: How many were timed.
        per_second: Optimiser steps (sampler: batches; rollout: steps of all episodes) in a second.
        timesteps_per_second: Steps of episodes in a second.
        flop_utilisation: Share of the machine's own matrix rate in this precision.
        bytes_per_second: Of the batches that were made or learnt from.
        peak_memory: In GiB; see `PeakMemory`.
        data_wait: Share of the time in which training waits for its next batch.
        parameters: Of the model.
        ratio: How many times as fast as the baseline, in timesteps.
        ratio_to_reference: How many times as fast as the reference module.
        ratio_to_published: How many times as fast as the published table.
        memory_to_published: Peak memory as a share of the table's.
        difference: Largest relative difference of the losses of two paths.
        series: What is varied in a measurement of scale.
        value: What it is set to.
        note: Anything else.
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

    def timed(self, timing: Timing, timesteps: int, per_piece: int = 1) -> Row:
        """This row with the times of a piece of work.

        Args:
            timing: Of one piece.
            timesteps: Steps of episodes in a piece.
            per_piece: What is counted in a piece (optimiser steps, steps of all episodes).
        """
        return replace(
            self,
            milliseconds=1e3 * timing.seconds / per_piece,
            spread=timing.spread,
            repeats=timing.repeats,
            per_second=per_piece / timing.seconds,
            timesteps_per_second=timesteps / timing.seconds,
        )


class Skipped(Exception):
    """A measurement that cannot be taken here; the message says why."""


@dataclass(frozen=True)
class Task:
    """A measurement that has not been taken.

    Attributes:
        label: What it is.
        measure: Takes it in about so many seconds.
        shares: Of the time: as many as rows come of it.
    """

    label: str
    measure: Callable[[float], Row | list[Row]]
    shares: int = 1


@dataclass(frozen=True)
class Subject:
    """A model on a configuration, on a machine.

    Attributes:
        configuration: With the model in it.
        machine: Where it runs.
        folder: For synthetic data and the files of training.
        batch_size: Windows in a batch; None is the configuration's own.
        num_envs: Episodes side by side; None is the configuration's own.
        settings: What the command line sets: dotted names to values.
        episodes: Of the synthetic data; None is enough for two batches.
        workers: Processes that step simulators; None is as many as in evaluation.
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
        """Synthetic data, made at first use and shared by all models of equal data."""
        spec, length = self.configuration.spec, self.configuration.episode_length
        episodes = self.episodes or max(2 * self.batch * self.configuration.window // length, 64)
        path = self.folder / f"{spec.name}-{episodes}x{length}"
        if not path.exists():
            make_store(path, spec, episodes, length)
        return path

    @cached_property
    def run(self) -> RunConfig:
        """The run that is measured."""
        return self.configuration.run_config(
            self.store, self.device.type, self.batch, self.settings or {}
        )

    @property
    def environment(self) -> Environment:
        """As training wants it; it never rolls out here."""
        return Environment(self.configuration.spec)

    def datamodule(self) -> TrajectoryDataModule:
        """The project's own, on the synthetic data, with epochs as long as the published ones."""
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
    def flops(self) -> float:
        """Of a training step."""
        own = self.configuration
        return step_flops(self.run.model, own.spec, own.window, self.batch)

    def row(self, part: str, variant: str = OURS, **values: Any) -> Row:
        """A row that has no times yet."""
        values = {"size": self.batch, **values}
        return Row(part, self.configuration.name, self.configuration.own, variant, **values)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning tells everyone about workers, intervals and loggers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
