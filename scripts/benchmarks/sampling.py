"""Timing of the sampler, in turns with sampling one window after the other in Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from datamodules.episodes import Array
from datamodules.store import Store
from rate.batch import Batch
from scripts.benchmarks.data import batch_bytes
from scripts.benchmarks.rows import OURS, Row, Subject
from scripts.benchmarks.timing import Turns, ready

PER_SAMPLE = "per-sample Python"
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
