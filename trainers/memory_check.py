"""Estimates the memory of a training step before data are collected or loaded."""

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

_COPIES = 4  # of the parameters: values, gradients and AdamW's two moments
# Measured peaks were 0.9 to 1.5 times the bytes that a step keeps for its backward pass.
_MOST = 1.5
_FEW = 1024  # steps of a batch; so few fit on any machine


@dataclass(frozen=True)
class StepMemory:
    """Memory of a training step, in bytes.

    Attributes:
        fixed: Parameters, gradients and the optimiser's state.
        window: Per window of the batch: its data, and the activations kept for the backward pass.
    """

    fixed: int
    window: int

    def of(self, windows: int) -> int:
        """Returns the bytes of a step on a batch of `windows` windows."""
        return self.fixed + windows * self.window


def check_memory(config: RunConfig, spec: EnvironmentSpec) -> None:
    """Check that the batches of a run fit into memory, and warn if they may not.

    Compiled models may keep less: on a GPU the limit is twice the free memory.

    Raises:
        ConfigError: If a training step needs more memory than the limit.
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
    # Each GPU holds its own part of a batch; processes on a CPU share its memory.
    part = training.batch_size // (training.devices * training.nodes)
    need = step.of(part) * (1 if on_gpu else training.devices)
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
    """Returns the memory of a training step, measured with one window on the CPU."""
    module = SequenceTrainer(config, spec)
    batch = _empty_batch(config, spec, module)
    saved = _saved_bytes(module, batch)
    if config.training.checkpoint_segments:  # segments are recomputed one at a time
        plain = replace(config.training, checkpoint_segments=False, bptt_segments=0)
        saved += _saved_bytes(SequenceTrainer(replace(config, training=plain), spec), batch)
    data = sum(tensor.nbytes for tensor in batch.tensors())
    parameters = sum(parameter.nbytes for parameter in module.parameters())
    return StepMemory(_COPIES * parameters, data + saved)


def _saved_bytes(module: SequenceTrainer, batch: Batch) -> int:
    """Returns the bytes kept for the backward pass, by the largest optimiser step of a batch."""
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
    """Returns a batch of one window of zeros, with the types of real data."""
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
