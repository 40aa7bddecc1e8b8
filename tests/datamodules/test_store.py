"""Stores return the episodes that were written."""

from __future__ import annotations

import mmap
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from datamodules import Episode, Store, write_store
from rate.envs.spec import EnvironmentSpec


def test_a_store_returns_the_episodes_that_were_written(store, spec, lengths, make_episode):
    assert (store.num_episodes, store.num_steps) == (len(lengths), sum(lengths))
    assert store.lengths.tolist() == lengths
    assert store.spec == spec
    for number, length in enumerate(lengths):
        wanted, found = make_episode(length, number), store.episode(number)
        np.testing.assert_array_equal(found.observations, wanted.observations)
        np.testing.assert_array_equal(found.actions, wanted.actions)
        np.testing.assert_array_equal(found.rewards, wanted.rewards.astype(np.float32))
        assert (found.terminated, found.truncated) == (wanted.terminated, wanted.truncated)
        assert found.seed == number
    with pytest.raises(IndexError, match="episode 8 of 8"):
        store.episode(8)


def test_returns_and_normalisation(store, lengths, make_episode):
    episodes = [make_episode(length, number) for number, length in enumerate(lengths)]
    returns = [episode.rewards.sum() for episode in episodes]
    assert store.return_range == pytest.approx((min(returns), max(returns)))
    for number, episode in enumerate(episodes):
        rows = slice(store.offsets[number], store.offsets[number + 1])
        wanted = [episode.rewards[step:].sum() for step in range(len(episode))]
        np.testing.assert_allclose(store.arrays["returns_to_go"][rows], wanted, rtol=1e-6)
    mean, std = store.normalisation[""]
    stacked = np.concatenate([episode.observations for episode in episodes]).astype(np.float64)
    np.testing.assert_allclose(mean, stacked.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, stacked.std(axis=0), rtol=1e-6)


def test_arrays_are_read_only_plain_files(store):
    for name, array in store.arrays.items():
        assert not array.flags.writeable, name
        file = store.path / store.manifest["arrays"][name]["file"]
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), array)


def test_the_fingerprint_identifies_the_contents(store, tmp_path, make_store):
    assert make_store(tmp_path / "same").fingerprint == store.fingerprint
    assert make_store(tmp_path / "other", [3, 4]).fingerprint != store.fingerprint


def test_return_to_go_is_summed_in_float64_and_integers_are_not_truncated(tmp_path, spec):
    rewards = np.array([0, 1, 0, 255, 1], dtype=np.uint8)  # an 8-bit sum would wrap
    base = Episode(np.zeros((5, 3), np.float32), np.zeros((5, 2), np.float32), rewards, True, False)
    tiny = np.full(100_000, 0.1, dtype=np.float32)
    long = Episode(
        np.zeros((len(tiny), 3), np.float32),
        np.zeros((len(tiny), 2), np.float32),
        tiny,
        True,
        False,
    )
    half = replace(base, rewards=np.array([0.5, 0, 0, 0, 0.25]))
    store = write_store([base, long, half], tmp_path / "s", spec, {})
    to_go = store.arrays["returns_to_go"]
    assert to_go[:5].tolist() == [257, 257, 256, 256, 1]
    assert to_go[5] == np.float32(tiny.astype(np.float64).sum())
    assert to_go[-5:].tolist() == [0.75, 0.25, 0.25, 0.25, 0.25]
    assert to_go.dtype == store.arrays["rewards"].dtype == np.float32


def test_dictionaries_pixels_and_integers_keep_their_types(tmp_path):
    spec = EnvironmentSpec(
        "camera",
        spaces.Dict(
            {
                "front/rgb": spaces.Box(0, 255, (8, 8, 3), np.uint8),
                "front rgb": spaces.Box(0, 255, (2, 2), np.uint8),
                "joints": spaces.Box(-1, 1, (5,), np.float64),
                "token": spaces.Discrete(7),
            }
        ),
        spaces.MultiDiscrete([3, 4]),
        1.0,
    )
    rng = np.random.default_rng(0)

    def play(steps):
        return Episode(
            {
                "front/rgb": rng.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8),
                "front rgb": rng.integers(0, 256, (steps, 2, 2), dtype=np.uint8),
                "joints": rng.uniform(-1, 1, (steps, 5)),
                "token": rng.integers(0, 7, steps),
            },
            rng.integers(0, 3, (steps, 2)),
            np.ones(steps, dtype=int),
            terminated=False,
            truncated=True,
        )

    episodes = [play(4), play(6)]
    store = write_store(iter(episodes), tmp_path / "s", spec, {})
    types = {key: array.dtype for key, array in store.observations.items()}
    assert types == {
        "front/rgb": np.uint8,
        "front rgb": np.uint8,
        "joints": np.float32,
        "token": np.int64,
    }
    assert store.arrays["actions"].dtype == np.int64
    assert list(store.normalisation) == ["joints"]
    for wanted, found in zip(episodes, (store.episode(0), store.episode(1)), strict=True):
        for key, array in wanted.observations.items():
            np.testing.assert_array_equal(found.observations[key], array.astype(types[key]))
        assert found.seed is None
    assert all(path.parent == store.path for path in store.path.rglob("*"))


def test_opening_reads_no_data(store):
    """The time to open a store does not depend on its size."""
    opened = Store.open(store.path)
    for name in ("actions", "rewards"):
        array = opened.arrays[name]
        while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
            array = array.base
        assert isinstance(array, np.memmap | mmap.mmap), name
    Store.open(store.path, verify=True)
