from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from datamodules import Episode, write_store
from datamodules.sampler import WindowSampler
from rate.envs.spec import EnvironmentSpec


def tensors(batch):
    parts = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    return {name: part for name, part in parts.items() if part is not None}


def assert_same(first, second):
    for name, tensor in tensors(first).items():
        assert torch.equal(tensor, getattr(second, name)), name


@pytest.mark.parametrize("mode", ["start", "random"])
def test_windows_equal_slices_of_their_episodes(store, mode):
    sampler = WindowSampler(store, 16, 6, seed=3, mode=mode)
    spans = set()
    for index in range(60):
        batch = sampler.batch(index)
        assert batch.observations.shape == (16, 6, 3)
        assert batch.actions.shape == (16, 6, 2)
        assert batch.returns_to_go.shape == (16, 6, 1)
        for row, number in enumerate(sampler.episodes(index)):
            episode = store.episode(number)
            real = int(batch.mask[row].sum())
            start = int(batch.timesteps[row, 0])
            spans.add((int(number), start, start + real))
            assert batch.mask[row].tolist() == [True] * real + [False] * (6 - real)
            steps = slice(start, start + real)
            assert batch.timesteps[row, :real].tolist() == list(range(start, start + real))
            for found, wanted in (
                (batch.observations, episode.observations),
                (batch.actions, episode.actions),
                (batch.rewards, episode.rewards),
            ):
                np.testing.assert_array_equal(found[row, :real], wanted[steps])
                assert not found[row, real:].any()
            to_go = episode.rewards.astype(np.float64)[::-1].cumsum()[::-1][steps]
            np.testing.assert_allclose(batch.returns_to_go[row, :real, 0], to_go, rtol=1e-4)
            ends = [t == len(episode) - 1 for t in range(start, start + real)]
            ends += [False] * (6 - real)
            assert batch.terminated[row].tolist() == [e and episode.terminated for e in ends]
            assert batch.truncated[row].tolist() == [e and episode.truncated for e in ends]
            assert batch.episode_end[row].tolist() == ends
            assert not batch.returns_to_go[row, real:].any()
            assert not batch.timesteps[row, real:].any()
    possible = {
        (number, max(0, first), min(first + 6, length))
        for number, length in enumerate(store.lengths.tolist())
        for first in (range(-5, length) if mode == "random" and length > 6 else (0,))
    }
    assert spans == possible


def test_cut_windows_hide_the_frames_after_their_end(tmp_path, counted):
    """No frame after a window's last step is sent, for every size of the frame stack."""
    store = counted(tmp_path, [40])
    stacked = WindowSampler(store, 300, 8, seed=0, mode="random", frame_stack=3).batch(0)
    real = stacked.mask.sum(1)
    assert real.min() == 1
    for row, count in enumerate(real.tolist()):
        first = int(stacked.timesteps[row, 0])
        frames = [max(0, 1 + first + back) if first + back >= 0 else 0 for back in (-2, -1)]
        wanted = frames + [1 + first + step for step in range(count)] + [0] * (8 - count)
        assert stacked.observations[row, :, 0].tolist() == wanted
        assert stacked.episode_end[row].sum() == (first + count == 40)


def test_every_kind_of_end(tmp_path):
    """An end of unknown kind counts as truncated: the true next state is not known."""
    spec = EnvironmentSpec("ends", spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2), 1.0)
    kinds = [(True, False), (False, True), (True, True), (False, False)]
    nothing = np.zeros((4, 1), np.float32), np.zeros(4, np.int64), np.zeros(4)
    store = write_store((Episode(*nothing, *kind) for kind in kinds), tmp_path / "ends", spec, {})
    sampler = WindowSampler(store, 4, 5, seed=0)
    batch = sampler.batch(0)
    for row, number in enumerate(sampler.episodes(0).tolist()):
        terminated, truncated = kinds[number]
        assert batch.episode_end[row].tolist() == [False, False, False, True, False]
        assert batch.terminated[row, 3] == terminated
        assert batch.truncated[row, 3] == (truncated or not terminated)


def test_types_are_those_of_the_batch(store):
    batch = WindowSampler(store, 2, 4, seed=0).batch(0)
    types = {name: tensor.dtype for name, tensor in tensors(batch).items()}
    assert types == {
        "observations": torch.float32,
        "actions": torch.float32,
        "returns_to_go": torch.float32,
        "timesteps": torch.int64,
        "mask": torch.bool,
        "rewards": torch.float32,
        "terminated": torch.bool,
        "truncated": torch.bool,
    }


@pytest.mark.parametrize("mode", ["start", "random"])
def test_a_batch_depends_on_seed_stream_and_index_only(store, mode):
    sampler = WindowSampler(store, 5, 4, seed=1, mode=mode)
    forward = [sampler.batch(index) for index in range(30)]
    fresh = WindowSampler(store, 5, 4, seed=1, mode=mode)
    for index in reversed(range(30)):
        assert_same(fresh.batch(index), forward[index])
    orders = {
        tuple(tuple(WindowSampler(store, 5, 4, **kw).episodes(i).tolist()) for i in range(8))
        for kw in ({"seed": 1}, {"seed": 2}, {"seed": 1, "stream": 1}, {"seed": -1})
    }
    assert len(orders) == 4


def test_the_order_is_pinned(store):
    """The order must survive NumPy releases: published runs depend on it."""
    sampler = WindowSampler(store, 8, 4, seed=1, mode="random")
    assert [sampler.episodes(index).tolist() for index in range(2)] == [
        [3, 5, 2, 7, 0, 6, 1, 4],
        [5, 3, 1, 0, 6, 7, 4, 2],
    ]
    assert sampler.batch(0).timesteps[:, 0].tolist() == [0, 6, 3, 2, 3, 0, 0, 5]
    assert sampler.batch(0).mask.sum(1).tolist() == [4, 3, 4, 4, 2, 3, 1, 2]


def test_a_batch_is_not_changed_by_the_next(store):
    sampler = WindowSampler(store, 5, 4, seed=1)
    first = sampler.batch(0)
    copy = first.observations.clone()
    first.observations.add_(0)
    sampler.batch(1)
    assert torch.equal(first.observations, copy)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20])
def test_every_pass_samples_every_episode_once(store, batch_size):
    sampler = WindowSampler(store, batch_size, 4, seed=0)
    count = store.num_episodes
    drawn = np.concatenate([sampler.episodes(i) for i in range(6 * count // batch_size + 1)])
    passes = drawn[: len(drawn) // count * count].reshape(-1, count)
    assert (np.sort(passes, axis=1) == np.arange(count)).all()
    assert len({tuple(row) for row in passes.tolist()}) > 1


@pytest.mark.parametrize("mode", ["start", "random"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_cover_the_samples_of_one_process_once(store, world_size, mode):
    alone = WindowSampler(store, 2 * world_size, 5, seed=4, mode=mode)
    ranks = [
        WindowSampler(store, 2, 5, seed=4, mode=mode, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for index in range(12):
        whole = tensors(alone.batch(index))
        parts = [tensors(sampler.batch(index)) for sampler in ranks]
        for name, tensor in whole.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), tensor), name


def test_dictionaries_and_pixels_stay_as_stored(tmp_path):
    spec = EnvironmentSpec(
        "camera",
        spaces.Dict(
            {
                "rgb": spaces.Box(0, 255, (4, 4, 3), np.uint8),
                "joints": spaces.Box(-9, 9, (2,), np.float32),
            }
        ),
        spaces.Discrete(4),
        1.0,
    )
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            {
                "rgb": rng.integers(1, 256, (steps, 4, 4, 3), dtype=np.uint8),
                "joints": rng.standard_normal((steps, 2)).astype(np.float32),
            },
            rng.integers(0, 4, steps),
            np.ones(steps, dtype=np.int64),
            True,
            False,
        )
        for steps in (3, 6)
    ]
    store = write_store(episodes, tmp_path / "s", spec, {})
    sampler = WindowSampler(store, 2, 5, seed=0)
    batch = sampler.batch(0)
    assert batch.observations["rgb"].dtype == torch.uint8
    assert batch.observations["joints"].shape == (2, 5, 2)
    assert batch.actions.dtype == torch.int64
    assert batch.actions.shape == (2, 5)
    row = sampler.episodes(0).tolist().index(0)
    np.testing.assert_array_equal(
        batch.observations["rgb"][row, :3], episodes[0].observations["rgb"]
    )
    assert not batch.observations["rgb"][row, 3:].any()
    assert batch.returns_to_go[row, :, 0].tolist() == [3, 2, 1, 0, 0]


def test_the_order_of_steps_is_pinned_and_split_among_ranks(store):
    def make(batch_size, **changes):
        settings = {"seed": 4, "mode": "random", "sampling": "steps"} | changes
        return WindowSampler(store, batch_size, 5, **settings)

    alone = make(6)
    assert alone.episodes(0).tolist() == [2, 2, 4, 3, 4, 4]
    assert alone.batch(0).timesteps[:, 0].tolist() == [1, 1, 6, 0, 1, 5]
    assert alone.batch(0).mask.sum(1).tolist() == [5, 5, 1, 4, 5, 2]
    ranks = [make(2, rank=rank, world_size=3) for rank in range(3)]
    for index in (11, 3, 0):
        whole, parts = tensors(alone.batch(index)), [tensors(r.batch(index)) for r in ranks]
        for name, tensor in whole.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), tensor), name
    assert alone.episodes(0).tolist() != make(6, seed=5).episodes(0).tolist()
    assert alone.episodes(0).tolist() != make(6, stream=1).episodes(0).tolist()


@pytest.mark.parametrize("sampling", ["episodes", "steps"])
@pytest.mark.parametrize("mode", ["start", "random"])
def test_frames_are_sent_once_and_begin_before_the_window(store, mode, sampling):
    settings = {"seed": 1, "mode": mode, "sampling": sampling}
    single = WindowSampler(store, 12, 5, **settings)
    stacked = WindowSampler(store, 12, 5, frame_stack=3, **settings)
    for index in range(6):
        alone, batch = single.batch(index), stacked.batch(index)
        assert batch.observations.shape == (12, 7, 3)
        assert torch.equal(batch.observations[:, 2:], alone.observations)
        for name in set(tensors(batch)) - {"observations"}:
            assert torch.equal(getattr(batch, name), getattr(alone, name)), name
        for row, number in enumerate(stacked.episodes(index)):
            start = int(batch.timesteps[row, 0])
            episode = store.episode(number).observations
            for back in (1, 2):
                wanted = episode[start - back] if start >= back else np.zeros(3, np.float32)
                np.testing.assert_array_equal(batch.observations[row, 2 - back], wanted)
