"""Seeds of noise, from the run's seed and the index of the batch, and deterministic kernels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rate.hashing import hash_integers


def seed_step(seed: int, batch: int, rank: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of a device for one batch of one process.

    The dropout and the memory noise of a batch are then the same after a resume.
    `torch.manual_seed` would seed all device types, which takes a millisecond.
    """
    number = hash_integers(seed, batch, rank)
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Has a GPU sum in the same order every time, so that a resumed run is equal bit for bit.

    Operations that have no such kernel compute as ever. Nothing changes on other devices, whose
    kernels are deterministic as they are.
    """
    if device.type != "cuda":
        yield
        return
    from torch._inductor import config as compiler  # it takes a second to import

    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    # Of cuBLAS; read when its first product is computed.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # A compiler that measures which kernel is fastest may choose another one after a resume.
    choice = {"deterministic": True} if hasattr(compiler, "deterministic") else {}
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
        with warnings.catch_warnings(), compiler.patch(choice):
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = filled
