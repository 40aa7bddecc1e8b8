"""Held-out episodes: their selection and their windows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from gymnasium import spaces

from datamodules import DatasetError, Episode, write_store
from datamodules.held_out import HeldOut, held_out_episodes
from datamodules.sampler import WindowSampler
from datamodules.step_arrays import StepArrays
from datamodules.store import Store
from datamodules.trajectories import TrajectoryDataModule
from rate.envs.spec import EnvironmentSpec

LENGTHS = [3, 9, 17, 5, 1, 12, 8, 30, 2, 6, 11, 7]
SPEC = EnvironmentSpec("counted", spaces.Box(0, 1e6, (2,), np.float32), spaces.Discrete(2), 1.0)


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> Store:
    """Observations are the number of the episode and of the step."""
    episodes = [
        Episode(
            np.stack([np.full(steps, number), np.arange(steps)], axis=1).astype(np.float32),
            np.zeros(steps, np.int64),
            np.full(steps, number / 10),
            number % 2 == 0,
            number % 2 == 1,
        )
        for number, steps in enumerate(LENGTHS)
    ]
    return write_store(episodes, tmp_path_factory.mktemp("held") / "counted", SPEC, {})


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.95])
def test_the_share_is_held_out_and_adding_episodes_changes_nothing(share: float) -> None:
    everything = held_out_episodes(2000, share)
    for count in (0, 1, 2, 19, 20, 21, 399, 1000, 2000):
        chosen = held_out_episodes(count, share)
        assert len(chosen) == int(count * share) <= max(0, count - 1)
        assert np.array_equal(chosen, everything[: len(chosen)])
    assert (np.diff(everything) > 0).all()


def test_held_out_episodes_are_spread_without_a_pattern() -> None:
    chosen = held_out_episodes(20_000, 0.05)
    assert np.array_equal(chosen // 20, np.arange(1000))  # one of each twenty
    counts = np.bincount(chosen % 20, minlength=20)
    assert 25 < counts.min() <= counts.max() < 80


@pytest.mark.parametrize("count", range(1, 20))
def test_few_episodes_are_held_out_only_on_request(count: int) -> None:
    assert len(held_out_episodes(count, 0.05)) == 0
    assert len(held_out_episodes(count, 0.5)) == count // 2


@pytest.mark.parametrize("mode", ["start", "random"])
@pytest.mark.parametrize("sampling", ["episodes", "steps"])
def test_held_out_episodes_are_never_sampled(counted: Store, mode, sampling) -> None:
    data = TrajectoryDataModule(
        counted.path, 4, 3, 2, seed=1, mode=mode, sampling=sampling, held_out=0.3
    )
    kept = set(held_out_episodes(len(LENGTHS), 0.3).tolist())
    assert len(kept) == 3
    sampler = data.make_sampler(None)
    drawn = Counter(int(n) for index in range(300) for n in sampler.episodes(index))
    assert set(drawn) == set(range(len(LENGTHS))) - kept
    assert data.num_episodes == sampler.num_episodes == len(LENGTHS) - 3
    seen: Counter[tuple[int, int]] = Counter()
    for batch in data.held_out_batches(torch.device("cpu"), 2, 1000):
        assert isinstance(batch.observations, torch.Tensor)
        assert batch.observations.shape[1:] == (6, 2)
        seen.update((int(n), int(t)) for n, t in batch.observations[batch.mask])
        assert batch.observations[..., 1][batch.mask].equal(batch.timesteps[batch.mask].float())
        for number, step in batch.observations[batch.terminated | batch.truncated]:
            assert step == LENGTHS[int(number)] - 1
    reached = {n: LENGTHS[n] if mode == "random" else min(6, LENGTHS[n]) for n in kept}
    assert seen == Counter((n, t) for n, steps in reached.items() for t in range(steps))
    assert data.held_out.num_steps == sum(reached.values())
    assert data.held_out.last_step == max(reached.values()) - 1


def test_processes_share_the_windows_of_a_fixed_order(counted: Store) -> None:
    held_out = HeldOut(counted, 0.5, 4, "random")
    arrays = StepArrays.of(counted)

    def rows(limit: int, rank: int = 0, world_size: int = 1) -> list[list[float]]:
        source = held_out.batches(arrays, 3, limit, rank, world_size)
        batches = map(source.batch, range(len(source)))
        return [row.tolist() for batch in batches for row in batch.observations[:, 0]]

    everything = rows(1000)
    assert len(everything) == held_out.num_windows > 5
    assert rows(5) == everything[:5]
    assert rows(5, 0, 2) + rows(5, 1, 2) == everything[:5:2] + everything[1:5:2]
    assert rows(1, 1, 2) == []
    assert everything != sorted(everything)


def test_limits_apply_to_held_out_episodes(counted: Store) -> None:
    every = HeldOut(counted, 0.5, 4)
    long = HeldOut(counted, 0.5, 4, min_length=8)
    good = HeldOut(counted, 0.5, 4, min_return=2.0)
    assert np.array_equal(every.excluded, long.excluded)
    assert set(long.episodes) == {n for n in every.episodes if LENGTHS[n] >= 8}
    assert set(good.episodes) == {n for n in every.episodes if LENGTHS[n] * n / 10 >= 2}
    assert 0 < len(long.episodes) < len(every.episodes)
    nothing = HeldOut(counted, 0.5, 4, min_length=1000)
    assert (nothing.num_windows, nothing.num_steps) == (0, 0)
    assert len(nothing.batches(StepArrays.of(counted), 2, 10)) == 0


def test_the_best_target_return_is_of_training_episodes(counted: Store) -> None:
    held_out = HeldOut(counted, 0.5, 4)
    rest = set(range(len(LENGTHS))) - set(held_out.excluded.tolist())
    returns = [LENGTHS[n] * n / 10 for n in rest]
    assert held_out.rest_return_range == pytest.approx((min(returns), max(returns)))
    assert HeldOut(counted, 0.0, 4).rest_return_range == counted.return_range


def test_a_window_that_fits_the_data_fits_with_any_held_out_share(counted: Store) -> None:
    longest = int(np.argmax(LENGTHS))
    batch = WindowSampler(counted, 4, 30, seed=0, held_out=np.array([longest])).batch(0)
    assert batch.num_steps == 30
    assert 0 < batch.mask.sum(1).max() < 30
    with pytest.raises(DatasetError, match="longer than any episode; the longest has 30 actions"):
        WindowSampler(counted, 4, 40, seed=0, held_out=np.array([longest]))


def test_limits_that_only_held_out_episodes_meet_are_refused(counted: Store) -> None:
    longest = np.array([np.argmax(LENGTHS)])
    message = (
        r"no episode has at least 20 steps; the lengths \(besides 1 that are held out, see data"
    )
    with pytest.raises(DatasetError, match=message):
        WindowSampler(counted, 4, 5, seed=0, min_length=20, held_out=longest)
    message = r"no episode has a return of at least 21.*\(besides 1 that are held out"
    with pytest.raises(DatasetError, match=message):
        WindowSampler(counted, 4, 5, seed=0, min_return=21.0, held_out=longest)


def test_a_run_resumes_only_with_the_same_held_out_episodes(counted: Store) -> None:
    def make(share: float) -> TrajectoryDataModule:
        return TrajectoryDataModule(counted.path, 4, 3, 2, seed=1, held_out=share)

    whole, part, none = make(0.0).state_dict(), make(0.3).state_dict(), make(0.05).state_dict()
    assert whole == none  # a share below one episode changes nothing
    assert "held_out" not in whole  # as in checkpoints of versions without held-out episodes
    make(0.05).load_state_dict(whole)
    make(0.3).load_state_dict(part)
    for share, state in ((0.3, whole), (0.0, part), (0.5, part)):
        with pytest.raises(DatasetError, match="made with held_out = "):
            make(share).load_state_dict(state)
