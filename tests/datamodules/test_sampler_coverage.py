"""How often windows have each step, and each episode."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.sampler import WindowSampler


def coverage(store, batches, world_size=1, **settings):
    """Returns how often each step of the store is in a window, over the mean, `(S,)`."""
    changes = np.zeros(store.num_steps + 1)
    for rank in range(world_size):
        sampler = WindowSampler(store, seed=0, rank=rank, world_size=world_size, **settings)
        for index in range(batches):
            windows = sampler.windows(index)
            for steps, change in ((windows.starts, 1), (windows.stops, -1)):
                rows = windows.first_rows + steps
                changes += change * np.bincount(rows, minlength=len(changes))
    counts = changes.cumsum()[:-1]
    return counts / counts.mean()


@pytest.mark.parametrize("window", [1, 4, 12, 30])
@pytest.mark.parametrize("sampling", ["episodes", "steps"])
@pytest.mark.parametrize(
    ("frame_stack", "world_size", "limits"),
    [(1, 1, {}), (4, 1, {}), (1, 3, {}), (1, 2, {"min_length": 10, "min_return": 0.5})],
)
def test_random_windows_hold_every_step_equally_often(
    tmp_path, counted, window, sampling, frame_stack, world_size, limits
):
    store = counted(tmp_path, [40] * 2)
    settings = {"frame_stack": frame_stack, "mode": "random", "sampling": sampling, **limits}
    found = coverage(
        store, 12, world_size, batch_size=9000 // world_size, window=window, **settings
    )
    assert found.min() > 0.9
    assert found.max() < 1.1


@pytest.mark.parametrize("window", [5, 20, 36])
def test_steps_are_sampled_equally_in_episodes_of_any_length(tmp_path, counted, window):
    lengths = [100, 1, 36, 37, 5, 20, 21, 300]
    store = counted(tmp_path, lengths)
    found = coverage(store, 40, batch_size=9000, window=window, mode="random", sampling="steps")
    for length, begin in zip(lengths, store.offsets, strict=False):
        part = found[begin : begin + length]
        assert 0.9 < part.min() <= part.max() < 1.1, length
    # Episodes are drawn equally often: steps of short ones are more frequent, evenly in each.
    found = coverage(store, 40, batch_size=9000, window=window, mode="random")
    for length, begin in zip(lengths, store.offsets, strict=False):
        part = found[begin : begin + length]
        assert part.min() > 0.9 * part.mean(), length


def test_steps_are_sampled_equally_with_start_windows(tmp_path, counted):
    store = counted(tmp_path, [30, 3, 10])
    sampler = WindowSampler(store, 2000, 10, seed=0, sampling="steps")
    found = coverage(store, 12, batch_size=2000, window=10, sampling="steps")
    assert found[10:30].max() == 0
    reached = np.delete(found, np.s_[10:30])
    np.testing.assert_allclose(reached, reached.mean(), rtol=0.05)
    assert (sampler.num_steps, sampler.num_reached) == (43, 23)
    anywhere = WindowSampler(store, 1, 10, seed=0, mode="random")
    assert anywhere.num_reached == anywhere.num_steps == 43


def test_sampling_by_steps_is_in_proportion_to_windows(store):
    sampler = WindowSampler(store, 100, 4, seed=2, mode="random", sampling="steps")
    drawn = np.concatenate([sampler.episodes(index) for index in range(300)])
    share = np.bincount(drawn, minlength=8) / len(drawn)
    windows = np.where(store.lengths > 4, store.lengths + 3, 4)
    np.testing.assert_allclose(share, windows / windows.sum(), atol=0.01)
    within = WindowSampler(store, 100, 4, seed=2, sampling="steps", max_episode_length=4)
    drawn = np.concatenate([within.episodes(index) for index in range(100)])
    share = np.bincount(drawn, minlength=8) / len(drawn)
    np.testing.assert_allclose(share, np.where(store.lengths <= 4, 1 / 3, 0), atol=0.02)
