"""Seeds of noise, derived from the run's seed and the index of the batch."""

from __future__ import annotations

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
