"""Synthetic trajectories of the right shapes and types, in a data set on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from datamodules.episodes import Array, Episode
from datamodules.store import Store
from datamodules.writing import write_store
from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec


def sample(space: gymnasium.Space[Any], count: int, rng: np.random.Generator) -> Array:
    """Samples `(count, *shape)` elements of a Box or a Discrete space.

    Raises:
        TypeError: If it is another space.
    """
    if isinstance(space, Discrete):
        return rng.integers(space.start, space.start + space.n, count)
    if not isinstance(space, Box):
        raise TypeError(f"the benchmark has no samples of {space}")
    shape = (count, *space.shape)
    if space.dtype == np.uint8:
        return np.frombuffer(bytearray(rng.bytes(int(np.prod(shape)))), np.uint8).reshape(shape)
    low, high = np.maximum(space.low, -1), np.minimum(space.high, 1)
    return rng.uniform(low, high, shape).astype(space.dtype)


def make_store(folder: Path, spec: EnvironmentSpec, episodes: int, length: int) -> Store:
    """Writes episodes of equal length with random observations and a return of 1.

    Stacked frames are stored as single ones, as in real data.
    """
    single = spec
    if spec.frame_stack > 1:
        shape = (spec.observation_space.shape or ())[1:]
        single = replace(spec, observation_space=Box(0, 255, shape, np.uint8), frame_stack=1)

    def generate() -> Iterator[Episode]:
        rng = np.random.default_rng(0)
        rewards = np.zeros(length, dtype=np.float32)
        rewards[-1] = 1
        for _ in range(episodes):
            yield Episode(
                observations=sample(single.observation_space, length, rng),
                actions=sample(single.action_space, length, rng),
                rewards=rewards,
                terminated=True,
                truncated=False,
            )

    return write_store(generate(), folder, single, {"source": "benchmark"})


def random_batch(spec: EnvironmentSpec, rows: int, steps: int) -> Batch:
    """Random windows `(rows, steps, ...)` without padding, as a model takes them."""
    rng = np.random.default_rng(0)

    def tensor(space: gymnasium.Space[Any]) -> Tensor:
        values = sample(space, rows * steps, rng)
        return torch.from_numpy(values).view(rows, steps, *values.shape[1:])

    ones = torch.ones(rows, steps)
    return Batch(
        observations=tensor(spec.observation_space),
        actions=tensor(spec.action_space),
        returns_to_go=ones[..., None],
        timesteps=torch.arange(steps).expand(rows, -1),
        mask=ones.bool(),
        rewards=ones,
        terminated=torch.zeros(rows, steps, dtype=torch.bool),
        truncated=torch.zeros(rows, steps, dtype=torch.bool),
    )


def batch_bytes(batch: Batch) -> int:
    """Size of all tensors of a batch in bytes."""
    parts = (v.values() if isinstance(v, dict) else (v,) for v in vars(batch).values())
    return sum(tensor.nbytes for part in parts for tensor in part if isinstance(tensor, Tensor))
