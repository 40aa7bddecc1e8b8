"""Limits on the length and the return of sampled episodes; invalid arguments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamodules import DatasetError, write_store
from datamodules.sampler import WindowSampler
from tests.datamodules.test_sampler import assert_same


def test_the_curriculum_samples_short_episodes_only(store):
    sampler = WindowSampler(store, 8, 4, seed=0, max_episode_length=4)
    assert sampler.num_episodes == 3
    drawn = np.concatenate([sampler.episodes(index) for index in range(6)])
    assert set(store.lengths[drawn].tolist()) == {1, 3, 4}
    assert np.bincount(drawn, minlength=8)[[1, 3, 6]].tolist() == [16, 16, 16]


def test_only_episodes_within_the_limits_are_sampled(store):
    returns = np.array([store.episode(i).rewards.sum(dtype=np.float64) for i in range(8)])
    limit = float(np.sort(returns)[3])
    good = set(np.flatnonzero(returns >= limit - 1e-6).tolist())
    long = set(np.flatnonzero(store.lengths >= 5).tolist())
    for limits, wanted in (
        ({"min_return": limit - 1e-6}, good),
        ({"min_length": 5}, long),
        ({"min_return": limit - 1e-6, "min_length": 5}, good & long),
        ({"min_length": 5, "max_episode_length": 7}, long - {2, 5}),
    ):
        sampler = WindowSampler(store, 4, 4, seed=0, **limits)
        assert sampler.num_episodes == len(wanted)
        assert set(np.concatenate([sampler.episodes(i) for i in range(9)]).tolist()) == wanted
    unlimited = WindowSampler(store, 4, 4, seed=1, min_return=-100.0, min_length=1)
    assert_same(unlimited.batch(3), WindowSampler(store, 4, 4, seed=1).batch(3))


def test_a_return_at_the_limit_is_kept_despite_rounding(tmp_path, spec, make_episode):
    episodes = [
        replace(make_episode(2), rewards=np.array([0, reward])) for reward in (0.95, 0.96, 0.97)
    ]
    store = write_store(episodes, tmp_path / "s", spec, {})
    assert WindowSampler(store, 1, 2, seed=0, min_return=0.96).num_episodes == 2


def test_limits_that_no_episode_meets_are_refused(store, make_store, tmp_path):
    with pytest.raises(DatasetError, match=r"at least 99; those of the 8 episodes are -.* to \d"):
        WindowSampler(store, 1, 3, seed=0, min_return=99)
    with pytest.raises(DatasetError, match="at least 10 steps; the lengths are 1 to 9"):
        WindowSampler(store, 1, 3, seed=0, min_length=10)
    best = max(store.arrays["returns_to_go"][store.offsets[:-1]])
    length = int(store.lengths[np.argmax(store.arrays["returns_to_go"][store.offsets[:-1]])])
    with pytest.raises(DatasetError, match=f"any episode of a return of .*longest has {length} ac"):
        WindowSampler(store, 1, length + 2, seed=0, min_return=float(best))


def test_windows_that_no_episode_fills_are_refused(store):
    WindowSampler(store, 1, 10, seed=0)  # the longest has 9 actions and 10 observations
    with pytest.raises(DatasetError, match=r"a window of 11 steps.*longest has 9 actions, 10"):
        WindowSampler(store, 1, 11, seed=0)


def test_invalid_arguments_are_refused(store, make_store, tmp_path):
    with pytest.raises(DatasetError, match="at most 3 steps; the shortest of 2 has 4"):
        WindowSampler(make_store(tmp_path / "s", [4, 6]), 1, 3, seed=0, max_episode_length=3)
    with pytest.raises(ValueError, match="mode 'middle'"):
        WindowSampler(store, 1, 3, seed=0, mode="middle")
    with pytest.raises(ValueError, match=r"batch_size \(0\)"):
        WindowSampler(store, 0, 3, seed=0)
    with pytest.raises(ValueError, match=r"frame_stack \(0\)"):
        WindowSampler(store, 1, 3, seed=0, frame_stack=0)
    with pytest.raises(ValueError, match="sampling 'windows'"):
        WindowSampler(store, 1, 3, seed=0, sampling="windows")
    with pytest.raises(ValueError, match="rank 2 is not one of 2"):
        WindowSampler(store, 1, 3, seed=0, rank=2, world_size=2)
    with pytest.raises(ValueError, match="batch -1"):
        WindowSampler(store, 1, 3, seed=0).batch(-1)
