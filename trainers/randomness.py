"""Seeds that are a function of where training stands, so that nothing needs storing."""

from __future__ import annotations

import torch

from rate.hashing import hash_integers


def seed_step(seed: int, batch: int, rank: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of a device for one batch of one process.

    Dropout and memory noise are then the same whether or not training was interrupted before.
    `torch.manual_seed` would see to every kind of device there is, which takes a millisecond.
    """
    number = hash_integers(seed, batch, rank)
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)
