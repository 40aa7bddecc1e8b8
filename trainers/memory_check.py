"""What a training step will take of memory, told before anything is collected or loaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from datamodules.data_device import free_memory
from datamodules.store_files import storage_dtype
from rate.batch import Batch, Observations
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from trainers.config import RunConfig
from trainers.sequence import SequenceTrainer

_COPIES = 4  # of the parameters: themselves, their gradients and AdamW's two averages
# Peaks of real steps were 0.9 to 1.5 times what a step keeps for its backward pass.
_MOST = 1.5
_FEW = 1024  # steps of a batch that fit everywhere


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step takes.

    Attributes:
        fixed: Parameters, gradients and the optimiser's state.
        window: A window of the batch: its data, and what is kept of it for the backward pass.
    """

    fixed: int
    window: int

    def of(self, windows: int) -> int:
        """Of a batch of so many windows."""
        return self.fixed + windows * self.window


def check_memory(config: RunConfig, spec: EnvironmentSpec) -> None:
    """Refuse a run whose batches do not fit into memory here, and warn of one that may not.

    On a GPU compiled models may keep less: only twice of what is free is refused there.

    Raises:
        ConfigError: If a training step takes more memory than is free.
    """
    training = config.training
    if training.batch_size * config.window <= _FEW:
        return
    on_gpu = training.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    free = free_memory(device)
    if free is None:
        return
    step = step_memory(config, spec)
    # Every GPU has its part of a batch to itself; processes on a CPU share its memory.
    need = step.of(training.batch_size // training.devices) * (1 if on_gpu else training.devices)
    if need * _MOST <= free:
        return
    fits = int((free / _MOST - step.fixed) / step.window)
    message = (
        f"training.batch_size={training.batch_size} takes about {_gb(need)} of memory, "
        f"{_gb(step.window)} for each window of {config.window} steps, and {_gb(free)} are free on "
        f"the {'GPU' if on_gpu else 'CPU'}. "
        + (f"About {fits:,} windows are sure to fit. " if fits > 0 else "")
        + "Lower training.batch_size or training.segments, or keep less of every window with "
        "training.checkpoint_segments=true."
    )
    if need > (2 * free if on_gpu else free):
        raise ConfigError(message)
    warnings.warn(message, stacklevel=2)


def step_memory(config: RunConfig, spec: EnvironmentSpec) -> StepMemory:
    """What a training step takes, seen in one window that passes through the model on the CPU."""
    module = SequenceTrainer(config, spec)
    batch = _empty_batch(config, spec, module)
    kept = _kept(module, batch)
    if config.training.checkpoint_segments:  # one segment at a time is computed again as a whole
        plain = replace(config.training, checkpoint_segments=False, bptt_segments=0)
        kept += _kept(SequenceTrainer(replace(config, training=plain), spec), batch)
    data = sum(tensor.nbytes for tensor in batch.tensors())
    parameters = sum(parameter.nbytes for parameter in module.parameters())
    return StepMemory(_COPIES * parameters, data + kept)


def _kept(module: SequenceTrainer, batch: Batch) -> int:
    """Bytes that the largest of a batch's optimiser steps keeps for its backward pass."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    half = module.config.training.precision.startswith(("bf16", "16"))
    largest = 0
    with (
        torch.random.fork_rng(devices=[]),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        for _ in module.losses(batch):
            largest = max(largest, sum(sizes.values()))
            sizes.clear()
    return largest


def _empty_batch(config: RunConfig, spec: EnvironmentSpec, module: SequenceTrainer) -> Batch:
    """A batch of one window of zeros, of the types that data have."""
    steps = config.window
    privileged = module.privileged
    return Batch(
        observations=_zeros(spec.observation_space, steps),
        actions=_zeros(spec.action_space, steps),  # type: ignore[arg-type]
        returns_to_go=torch.zeros(1, steps, 1),
        timesteps=torch.arange(steps)[None],
        mask=torch.ones(1, steps, dtype=torch.bool),
        rewards=torch.zeros(1, steps),
        terminated=torch.zeros(1, steps, dtype=torch.bool),
        truncated=torch.zeros(1, steps, dtype=torch.bool),
        privileged=None if privileged is None else torch.zeros(1, steps, *privileged.shape),
    )


def _zeros(space: gym.Space[Any], steps: int) -> Observations:
    if isinstance(space, gym.spaces.Dict):
        return {key: cast("Tensor", _zeros(part, steps)) for key, part in space.spaces.items()}
    return torch.from_numpy(np.zeros((1, steps, *(space.shape or ())), storage_dtype(space)))


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
