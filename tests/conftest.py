"""What every test shares: one thread, a fixed seed, and Ctrl+C."""

from __future__ import annotations

import signal

import pytest
import torch

torch.set_num_threads(1)
# A shell has what it starts in the background ignore it, and so would all that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Torch starts every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)
