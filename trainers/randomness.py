"""Seeds that are a function of where training stands, so that nothing needs storing."""

from __future__ import annotations

import torch

_WORD = (1 << 64) - 1


def mix(*values: int) -> int:
    """A 63-bit hash of integers: the finaliser of SplitMix64 (Steele et al. 2014), chained."""
    state = 0
    for value in values:
        state = (state + (value & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state >> 1


def seed_step(seed: int, batch: int, rank: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of a device for one batch of one process.

    Dropout and memory noise are then the same whether or not training was interrupted before.
    `torch.manual_seed` would see to every kind of device there is, which takes a millisecond.
    """
    number = mix(seed, batch, rank)
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)
