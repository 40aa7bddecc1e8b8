"""What every test shares: one thread and a fixed seed."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Torch starts every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)
