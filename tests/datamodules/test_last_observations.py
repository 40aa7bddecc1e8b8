"""The observations that follow truncated episodes, in batches of rules that bootstrap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from datamodules.episodes import Episode
from datamodules.step_arrays import StepArrays
from datamodules.store import Store
from datamodules.trajectories import TrajectoryDataModule
from datamodules.writing import open_writer
from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec

LENGTHS = (3, 5, 4, 6)
ENDS = ((False, True), (True, False), (True, True), (False, True))  # terminated, truncated
SPEC = EnvironmentSpec("test", Box(-9, 999, (1,), np.float32), Discrete(2), target_return=1.0)


def write(path: Path, *, keys: tuple[str, ...] = (), last: bool = True) -> Store:
    """Writes a store whose observation at step t of episode e is `100 e + t`, in all keys."""

    def episode(number: int) -> Episode:
        length, (terminated, truncated) = LENGTHS[number], ENDS[number]
        seen = np.arange(100 * number, 100 * number + length + 1, dtype=np.float32)[:, None]
        observed = {"vector": seen, "privileged": np.zeros((length + 1, 2), np.float32)}
        return Episode(
            observations={k: v[:-1] for k, v in observed.items()} if keys else seen[:-1],
            actions=np.zeros(length, np.int64),
            rewards=np.ones(length, np.float32),
            terminated=terminated,
            truncated=truncated,
            seed=number,
            last_observation={k: v[-1] for k, v in observed.items()} if keys else seen[-1],
        )

    space = SPEC.observation_space
    other = Box(-9, 9, (2,), np.float32)
    both = Dict({key: space if key == "vector" else other for key in keys})
    spec = replace(SPEC, observation_space=both if keys else space)
    with open_writer(path, spec, {}, keep_last=last) as writer:
        for number in range(len(LENGTHS)):
            writer.append(episode(number))
        writer.finish({})
    return Store.open(path)


def batch_of(store: Store, *, window: int, spec: EnvironmentSpec = SPEC) -> Batch:
    data = TrajectoryDataModule(
        store.path, len(LENGTHS), window, 1, seed=0, spec=spec, with_last_observations=True
    )
    return data.make_sampler(None).batch(0)


@pytest.mark.parametrize("keys", [(), ("vector", "privileged")])
def test_a_truncated_episode_is_followed_by_its_last_observation(tmp_path, keys) -> None:
    """Also where the model observes one key of a dictionary."""
    batch = batch_of(write(tmp_path / "store", keys=keys), window=6)
    assert isinstance(batch.observations, torch.Tensor)
    assert batch.following is not None
    for row in range(len(LENGTHS)):
        number = int(batch.observations[row, 0, 0]) // 100
        length, (terminated, truncated) = LENGTHS[number], ENDS[number]
        fits = length < 6 and truncated and not terminated
        assert batch.following[row].nonzero().flatten().tolist() == ([length] if fits else [])
        assert batch.mask[row].sum() == length
        observed = batch.observations[row, : length + fits, 0].tolist()
        assert observed == list(range(100 * number, 100 * number + length + fits))
        assert batch.timesteps[row, : length + fits].tolist() == list(range(length + fits))
        assert not batch.observations[row, length + fits :].any()
    assert torch.equal(batch.observed, batch.mask | batch.following)


def test_batches_on_a_device_are_equal(tmp_path) -> None:
    store = write(tmp_path / "store")
    data = TrajectoryDataModule(store.path, 4, 6, 1, seed=0, with_last_observations=True)
    host, windows = data.arrays, data.make_sampler(None).windows(0)
    device = host.to(torch.device("cpu"))
    assert device.nbytes == host.nbytes > StepArrays.of(store).nbytes
    pairs = zip(host.gather(windows).tensors(), device.gather(windows).tensors(), strict=True)
    assert all(torch.equal(mine, others) for mine, others in pairs)


def test_data_without_last_observations_have_none(tmp_path) -> None:
    batch = batch_of(write(tmp_path / "store", last=False), window=6)
    assert batch.following is not None
    assert not batch.following.any()
    plain = TrajectoryDataModule(tmp_path / "store", 4, 6, 1, seed=0).make_sampler(None).batch(0)
    assert plain.following is None


def test_stacked_frames_hold_it(tmp_path) -> None:
    store = write(tmp_path / "store")
    windows = TrajectoryDataModule(store.path, 4, 6, 1, seed=0).make_sampler(None).windows(0)
    stacked = replace(windows, frame_stack=3)
    batch = StepArrays.of(store, with_last=True).gather(stacked)
    assert isinstance(batch.observations, torch.Tensor)
    row = int((windows.first_rows == 0).nonzero()[0][0])  # the truncated episode of 3 steps
    assert batch.observations[row, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 0, 0]
    assert batch.following is not None
    assert batch.following[row].nonzero().flatten().tolist() == [3]
