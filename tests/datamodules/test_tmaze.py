from __future__ import annotations

import json
import multiprocessing

import numpy as np
import pytest

from datamodules import DatasetError, Store
from datamodules.tmaze import generate_tmaze, play_oracle
from rate.envs.tmaze import TMAZE_SPEC, TMaze
from tests.digests import renew_store
from tests.processes import PATIENCE


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tmaze")
    return directory, generate_tmaze(directory, 30, num_episodes=200, seed=1)


def test_lengths_and_goals_are_balanced(made):
    store = Store.open(made[1], verify=True)
    assert store.spec == TMAZE_SPEC
    assert store.num_episodes == 200
    assert store.return_range == (1, 1)
    counts = np.bincount(store.lengths, minlength=30)[2:]  # 2 to 29 actions
    assert counts.min() >= 4
    assert counts.max() <= 10
    clues = store.observations[store.offsets[:-1], 1]
    assert clues.sum() == 0
    assert len(set(store.arrays["seeds"].tolist())) == 200
    assert store.arrays["terminated"].all()


def test_every_episode_can_be_reproduced_from_its_seed(made):
    store = Store.open(made[1])
    env = TMaze((3, 30))
    for index in range(0, store.num_episodes, 17):
        episode = store.episode(index)
        observation, _ = env.reset(seed=episode.seed)
        for step, action in enumerate(episode.actions):
            np.testing.assert_array_equal(observation, episode.observations[step])
            observation, reward, terminated, *_ = env.step(action)
            assert reward == episode.rewards[step]
        assert terminated


def test_data_are_generated_once(made, tmp_path):
    directory, path = made
    changed = (path / "manifest.json").stat().st_mtime_ns
    assert generate_tmaze(directory, 30, num_episodes=200, seed=1) == path
    assert (path / "manifest.json").stat().st_mtime_ns == changed
    again = generate_tmaze(tmp_path, 30, num_episodes=200, seed=1)
    assert Store.open(again).fingerprint == Store.open(path).fingerprint
    other = generate_tmaze(tmp_path, 30, num_episodes=200, seed=2)
    assert Store.open(other).fingerprint != Store.open(path).fingerprint


def test_damaged_or_other_data_are_refused(tmp_path):
    path = generate_tmaze(tmp_path, 5, num_episodes=4)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["provenance"]["collector"] = "another"
    (path / "manifest.json").write_text(json.dumps(manifest))
    renew_store(path)
    with pytest.raises(DatasetError, match="holds other data; delete it"):
        generate_tmaze(tmp_path, 5, num_episodes=4)
    (path / "actions.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"actions\.npy: the file has 0 bytes"):
        generate_tmaze(tmp_path, 5, num_episodes=4)


def _generate(directory, queue):
    queue.put(str(generate_tmaze(directory, 12, num_episodes=60)))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_generate, args=(tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    paths = {queue.get(timeout=PATIENCE) for _ in processes}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert Store.open(paths.pop(), verify=True).num_episodes == 60
    assert not paths


@pytest.mark.parametrize(("max_length", "count"), [(3, 1), (3, 7), (4, 3), (50, 1), (5000, 9)])
def test_small_and_long_requests(max_length, count):
    episodes = list(play_oracle(max_length, count, seed=0))
    lengths = [len(episode) + 1 for episode in episodes]
    assert len(lengths) == count
    assert max(lengths) == max_length
    assert min(lengths) >= 3
    assert sum(episode.rewards.sum() for episode in episodes) == count


@pytest.mark.parametrize(
    "arguments",
    [{"max_length": 2}, {"max_length": 9, "num_episodes": 0}, {"max_length": 9, "seed": -1}],
)
def test_invalid_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match="T-Maze data of"):
        generate_tmaze(tmp_path, **arguments)
