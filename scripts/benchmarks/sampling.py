"""Timing of the sampler and of the replay, in turns with sampling in Python, one by one."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.episodes import Array
from datamodules.store import Store
from rate.batch import Batch
from scripts.benchmarks.data import batch_bytes, random_batch
from scripts.benchmarks.rows import OURS, Row, Subject
from scripts.benchmarks.timing import Turns, ready
from trainers.sources.replay import SequenceReplay, batch_of, named_parts

CPU = torch.device("cpu")
PER_SAMPLE = "per-sample Python"
LIST = "list of episodes"
_UNROLLS, _BYTES = 5000, 2**28  # of the replay: as many as a run's, if they are small enough
_PER_SAMPLE_BATCH = 16  # the cost is in proportion to the number of windows


def time_sampler(subject: Subject, budget: float, baseline: bool = True) -> list[Row]:
    """Sampling batches and moving them to the device.

    Args:
        subject: Whose batches are sampled.
        budget: Seconds.
        baseline: Whether to time sampling in Python as well.
    """
    few = replace(subject, batch_size=min(subject.batch, _PER_SAMPLE_BATCH))
    variants = {OURS: (subject, _sampler(subject))}
    if baseline:
        variants = {PER_SAMPLE: (few, _per_sample(few)), **variants}
    turns = Turns({name: ready(call) for name, (_, call) in variants.items()}, few.device, budget)
    turns.run()
    rows = subject.failed("sampler", turns.failed)
    for name, timing in turns.timings().items():
        of, call = variants[name]
        rows.append(of.with_rates(of.row("sampler", name), timing, batch_bytes(call())))
    return rows


class EpisodeList:
    """A replay as a Python list of episodes, each a dictionary of arrays.

    Args:
        unrolls: The episodes, one a row.
        seed: Of sampling.
    """

    def __init__(self, unrolls: Batch, seed: int) -> None:
        parts = named_parts(unrolls)
        rows = range(unrolls.batch_size)
        self._episodes = [{name: part[row].numpy() for name, part in parts.items()} for row in rows]
        self._random = random.Random(seed)

    def sample(self, size: int) -> Batch:
        """Returns a batch of random episodes, stacked one by one."""
        chosen = [self._random.choice(self._episodes) for _ in range(size)]
        return batch_of(
            {
                name: torch.from_numpy(np.stack([each[name] for each in chosen]))
                for name in chosen[0]
            }
        )


def time_replay(subject: Subject, budget: float) -> list[Row]:
    """Sampling batches of unrolls for learning online, uniformly and by priority.

    In place of a model, rows name the sampling. The files of the replay are in the cache of the
    operating system.
    """
    spec, steps = subject.configuration.spec, subject.configuration.window
    size = min(_UNROLLS, max(subject.batch, _BYTES // batch_bytes(random_batch(spec, 1, steps))))
    unrolls = random_batch(spec, size, steps)
    return [
        replace(row, model=name)
        for name, exponents in (("uniform", (0.0, 0.0)), ("by priority", (0.9, 0.6)))
        for row in _time_replay(subject, unrolls, exponents, budget / 2)
    ]


def _time_replay(
    subject: Subject, unrolls: Batch, exponents: tuple[float, float], budget: float
) -> list[Row]:
    """Times a replay with exponents of priority and importance, and a list with its unrolls."""
    with tempfile.TemporaryDirectory(dir=subject.folder) as folder:
        replay = SequenceReplay(Path(folder), unrolls.batch_size, 0, 1, *exponents)
        replay.add(unrolls)
        episodes, numbers = EpisodeList(unrolls, 1), itertools.count()
        calls: dict[str, Callable[[], Batch]] = {
            LIST: lambda: episodes.sample(subject.batch),
            OURS: lambda: replay.sample(next(numbers), subject.batch)[0],
        }
        turns = Turns({name: ready(call) for name, call in calls.items()}, CPU, budget)
        turns.run()
        rows = subject.failed("replay", turns.failed)
        for name, timing in turns.timings().items():
            row = subject.row("replay", name, note=f"of {unrolls.batch_size} unrolls")
            rows.append(subject.with_rates(row, timing, batch_bytes(calls[name]())))
    return rows


def _sampler(subject: Subject) -> Callable[[], Batch]:
    datamodule = subject.datamodule()
    datamodule.set_data_device(subject.device)
    sampler, numbers = datamodule.make_sampler(None), itertools.count()

    def call() -> Batch:
        batch = sampler.batch(next(numbers)).to(subject.device)
        datamodule.on_after_batch_transfer(batch, 0)
        return batch

    return call


def _per_sample(subject: Subject) -> Callable[[], Batch]:
    store, rng = Store.open(subject.store), np.random.default_rng(0)

    def call() -> Batch:
        batch = per_sample_batch(store, subject.batch, subject.configuration.window, rng)
        return batch.to(subject.device)

    return call


def per_sample_batch(store: Store, batch_size: int, window: int, rng: np.random.Generator) -> Batch:
    """Builds a batch as Decision Transformer's code does: sample by sample, in Python.

    For every sample, returns-to-go are summed to the end of its episode, arrays are padded by
    concatenation and converted to float32 (pixels divided by 255); then samples are stacked.
    """
    samples = [_sample(store, window, rng) for _ in range(batch_size)]
    stacked = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    tensors: dict[str, Any] = {n: torch.from_numpy(value) for n, value in stacked.items()}
    return Batch(**tensors)


def _sample(store: Store, window: int, rng: np.random.Generator) -> dict[str, Array]:
    index = int(rng.choice(store.num_episodes, p=store.lengths / store.num_steps))
    episode = store.episode(index)
    start = int(rng.integers(len(episode)))
    steps = slice(start, start + window)
    observations = np.asarray(episode.observations)[steps]
    if observations.dtype == np.uint8:
        observations = observations / 255
    real = len(observations)
    returns = _sums_to_the_end(episode.rewards[start:])[:real]

    is_end = np.arange(start, start + real) == len(episode) - 1

    def pad(values: Array) -> Array:
        return np.concatenate((values, np.zeros((window - real, *values.shape[1:]), values.dtype)))

    return {
        "observations": pad(observations.astype(np.float32)),
        "actions": pad(episode.actions[steps]),
        "returns_to_go": pad(returns[:, None]),
        "timesteps": pad(np.arange(start, start + real)),
        "mask": pad(np.ones(real, dtype=bool)),
        "rewards": pad(episode.rewards[steps]),
        "terminated": pad(is_end & episode.terminated),
        "truncated": pad(is_end & episode.truncated),
    }


def _sums_to_the_end(rewards: Array) -> Array:
    sums = np.zeros_like(rewards, dtype=np.float32)
    sums[-1] = rewards[-1]
    for step in reversed(range(len(rewards) - 1)):
        sums[step] = rewards[step] + sums[step + 1]
    return sums
