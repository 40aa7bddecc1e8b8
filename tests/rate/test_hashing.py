"""The hash, and uniform numbers that are a function of a counter."""

from __future__ import annotations

import numpy as np

from rate.hashing import counter_uniforms, hash_counter, hash_integers, splitmix64


def test_counter_uniforms_are_uniform_and_independent() -> None:
    keys = splitmix64(np.arange(200, dtype=np.uint64))
    drawn = np.stack([counter_uniforms(keys, np.full(200, step), 3) for step in range(100)])
    assert drawn.dtype == np.float64
    assert 0 <= drawn.min() < 1e-3
    assert 1 - 1e-3 < drawn.max() < 1
    counts, _ = np.histogram(drawn, 10, (0, 1))
    np.testing.assert_allclose(counts / drawn.size, 0.1, rtol=0, atol=0.006)
    by_step = np.corrcoef(drawn.reshape(100, -1))
    by_part = np.corrcoef(drawn.reshape(-1, 3).T)
    for table in (by_step, by_part):
        assert np.abs(table - np.eye(len(table))).max() < 0.2
    assert len(np.unique(drawn)) == drawn.size


def test_a_row_depends_on_its_own_episode_and_step_alone() -> None:
    keys, steps = splitmix64(np.arange(5, dtype=np.uint64)), np.array([3, 0, 7, 7, 1])
    together = counter_uniforms(keys, steps, 2)
    for row in range(5):
        alone = counter_uniforms(keys[row : row + 1], steps[row : row + 1], 2)
        np.testing.assert_array_equal(alone[0], together[row])


def test_the_hash_is_splitmix64() -> None:
    """The first outputs of the generator for the seed 0, as its authors publish them."""
    gamma = 0x9E3779B97F4A7C15
    counters = np.array([n * gamma % (1 << 64) for n in range(3)], np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(counters).tolist() == expected
    assert [splitmix64(counter) for counter in counters.tolist()] == expected


def test_hashes_of_seeds_and_counters_stay_what_stored_data_were_made_with() -> None:
    assert [hash_counter(7, 3), hash_counter(-1, 1 << 62)] == [896450348, 1534275933]
    seeds = np.array([7, (1 << 64) - 1], np.uint64)
    together = hash_counter(seeds, np.array([3, 1 << 62], np.uint64))
    assert together.tolist() == [896450348, 1534275933]
    assert hash_counter(seeds, seeds[:1]).tolist() == [hash_counter(s, 7) for s in seeds.tolist()]


def test_hashes_of_several_integers_stay_what_runs_were_seeded_with() -> None:
    assert hash_integers(0, 5, 1) == 3237345056714494409
    assert hash_integers(-3) == 8912485561563926766
