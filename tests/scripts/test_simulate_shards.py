"""What a cache of shards saves, where it can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.simulate_shards import Setting, blocks, fetched, uniform


def setting(steps: float, cached: int, batches: int = 2000) -> Setting:
    """Shards of 10 bytes and 10 steps; 8 windows of one step in a batch."""
    return Setting(steps, 1, 10, 10 * cached, 8, 1, batches)


def test_a_cache_of_all_shards_fetches_none_and_a_small_one_its_share() -> None:
    few, many = setting(100, 10), setting(10_000, 500)
    assert (few.shards, few.cached) == (10, 10)
    assert fetched(few, uniform(few, np.random.default_rng(0))) == 0
    half = fetched(many, uniform(many, np.random.default_rng(0)))
    assert half == pytest.approx(8 * 0.5, rel=0.1)  # half of the shards are cached


def test_blocks_fetch_each_of_their_shards_once() -> None:
    chosen = setting(100_000, 20)
    per_batch = fetched(chosen, blocks(chosen, np.random.default_rng(0)))
    # 16 shards of 10 windows each last for 20 batches of 8.
    assert per_batch == pytest.approx(16 / 20, rel=0.1)
