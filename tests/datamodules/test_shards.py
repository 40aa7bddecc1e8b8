"""Stores of shards: the same batches as one store, and only what is sampled is opened."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import Store, write_store
from datamodules.checks import check
from datamodules.episodes import DatasetError
from datamodules.formats import Options
from datamodules.joining import join_stores
from datamodules.sampler import WindowSampler
from datamodules.shards import ShardedArray
from datamodules.trajectories import TrajectoryDataModule
from trainers.commands.join import main as join

PARTS = ([5, 9, 3], [12, 4], [7, 7, 8, 2])
LENGTHS = [length for part in PARTS for length in part]


@pytest.fixture
def folder(tmp_path, spec, make_episode) -> Path:
    """A folder of three stores that hold the episodes of one store, in its order."""
    numbers = iter(range(len(LENGTHS)))
    for index, lengths in enumerate(PARTS):
        episodes = [make_episode(length, next(numbers)) for length in lengths]
        write_store(episodes, tmp_path / "parts" / f"part{index}", spec, {"source": str(index)})
    return tmp_path / "parts"


@pytest.fixture
def flat(tmp_path, spec, make_episode) -> Store:
    episodes = [make_episode(length, number) for number, length in enumerate(LENGTHS)]
    return write_store(episodes, tmp_path / "flat", spec, {"source": "all"})


def opened(store: Store) -> list[bool]:
    array = store.arrays["actions"]
    assert isinstance(array, ShardedArray)
    return ["arrays" in shard.__dict__ for shard in array.shards]


@pytest.mark.parametrize("mode", ["start", "random"])
@pytest.mark.parametrize("sampling", ["episodes", "steps"])
def test_batches_are_those_of_one_store(folder, flat, mode, sampling) -> None:
    joined = join_stores(folder)
    samplers = [
        WindowSampler(store, 4, 6, seed=3, mode=mode, sampling=sampling) for store in (joined, flat)
    ]
    assert samplers[0].returns_to_go_range == samplers[1].returns_to_go_range
    for index in range(12):
        found, expected = (sampler.batch(index) for sampler in samplers)
        for field in fields(expected):
            parts = getattr(found, field.name), getattr(expected, field.name)
            if isinstance(parts[1], torch.Tensor):
                assert torch.equal(*parts), field.name


def test_what_is_known_of_the_data_is_that_of_one_store(folder, flat) -> None:
    joined = join_stores(folder)
    assert (joined.num_episodes, joined.num_steps) == (flat.num_episodes, flat.num_steps)
    assert joined.return_range == flat.return_range
    assert joined.offsets.tolist() == flat.offsets.tolist()
    for found, expected in zip(joined.normalisation[""], flat.normalisation[""], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for number in range(flat.num_episodes):
        found, expected = joined.episode(number), flat.episode(number)
        np.testing.assert_array_equal(found.observations, expected.observations)
        assert (found.seed, found.terminated) == (expected.seed, expected.terminated)
    np.testing.assert_array_equal(joined.arrays["rewards"][2:20], flat.arrays["rewards"][2:20])
    assert check(folder, Options(), lambda done, total: None).problems == []


def test_shards_are_opened_when_their_steps_are_read(folder) -> None:
    join_stores(folder)
    store = Store.open(folder)
    assert opened(store) == [False, False, False]
    store.episode(4)  # the last of the second
    assert opened(store) == [False, True, False]
    (folder / "part2" / "manifest.json").write_text("{}")
    store.episode(3)
    with pytest.raises(DatasetError, match=r"part2: not the store that was joined"):
        store.episode(8)


def test_an_altered_shard_is_refused_when_it_is_read(folder) -> None:
    join_stores(folder)
    file = folder / "part1" / "rewards.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    store = Store.open(folder)
    store.episode(0)
    with pytest.raises(DatasetError, match=r"part1.rewards\.npy: the contents changed"):
        store.episode(3)


def test_a_run_trains_on_a_joined_folder_and_tells_it_from_others(folder, spec) -> None:
    def data() -> TrajectoryDataModule:
        return TrajectoryDataModule(folder, batch_size=4, context_length=6, segments=1, seed=0)

    join_stores(folder)
    state = data().state_dict()
    shutil.rmtree(folder / "part2")
    join_stores(folder)
    with pytest.raises(DatasetError, match="the checkpoint was made with data"):
        data().load_state_dict(state)


def test_what_cannot_be_joined_is_named(folder, spec, make_episode, tmp_path, capsys) -> None:
    with pytest.raises(DatasetError, match="there is no store in it"):
        join_stores(tmp_path / "nothing")
    other = replace(spec, name="another")
    write_store([make_episode(4, 0)], folder / "part9", other, {"source": "another"})
    with pytest.raises(SystemExit, match="2"):
        join([str(folder)])
    assert "part9: is of another" in capsys.readouterr().err
    shutil.rmtree(folder / "part9")
    join([str(folder)])
    assert f"3 stores, {len(LENGTHS)} episodes, {sum(LENGTHS)} steps" in capsys.readouterr().out
    (folder / "part2").rename(tmp_path / "elsewhere")
    (folder / "part2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="'part2' is not a folder"):
        Store.open(folder)
