"""Consecutive windows: each row of a batch continues that row of the batch before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from datamodules import Episode, write_store
from datamodules.consecutive import ConsecutiveSampler
from datamodules.store import Store
from rate.envs.spec import EnvironmentSpec

LENGTHS = (3, 9, 4, 12, 7, 1)
WINDOW, ROWS = 4, 5
WINDOWS = sum(-(-length // WINDOW) for length in LENGTHS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Episodes whose actions are their own numbers."""
    box = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    spec = EnvironmentSpec("test", box, gymnasium.spaces.Discrete(len(LENGTHS)), target_return=1.0)
    episodes = [
        Episode(
            np.zeros((length, 2), np.float32),
            np.full(length, number),
            np.zeros(length, np.float32),
            terminated=True,
            truncated=False,
        )
        for number, length in enumerate(LENGTHS)
    ]
    folder: Path = tmp_path_factory.mktemp("data") / "store"
    return write_store(episodes, folder, spec, {"source": "a test"})


def sampler(store: Store, **changes: Any) -> ConsecutiveSampler:
    settings = {"batch_size": ROWS, "window": WINDOW, "seed": 1, "mode": "consecutive", **changes}
    return ConsecutiveSampler(store, **settings)


def test_every_row_reads_whole_episodes_in_order(store: Store) -> None:
    """Each window starts where the last of its row stopped, or with a new episode."""
    source = sampler(store)
    batches = [source.windows(index) for index in range(3 * WINDOWS)]
    episodes = [source.episodes(index) for index in range(3 * WINDOWS)]
    for row in range(ROWS):
        for index in range(1, 3 * WINDOWS):
            before, now = batches[index - 1], batches[index]
            if before.stops[row] < LENGTHS[episodes[index - 1][row]]:
                assert episodes[index][row] == episodes[index - 1][row]
                assert now.starts[row] == before.stops[row]
            else:
                assert now.starts[row] == 0
            assert now.stops[row] == min(now.starts[row] + WINDOW, LENGTHS[episodes[index][row]])


def test_a_pass_of_a_row_has_every_step_once(store: Store) -> None:
    source = sampler(store)
    first = source.windows(0).starts // WINDOW  # windows of pass 0 that a row leaves out
    orders = []
    for row in range(ROWS):
        begin = WINDOWS - int(first[row])
        seen = [
            (int(source.episodes(index)[row]), int(source.windows(index).starts[row]))
            for index in range(begin, begin + WINDOWS)
        ]
        expected = {(n, t) for n, length in enumerate(LENGTHS) for t in range(0, length, WINDOW)}
        assert len(seen) == len(expected)
        assert set(seen) == expected
        orders.append(tuple(number for number, start in seen if start == 0))
    assert len(set(orders)) > 1, "all rows have one order"
    assert source.num_reached == source.num_steps == sum(LENGTHS)


def test_batches_are_a_function_of_their_index_and_of_no_process(store: Store) -> None:
    whole = sampler(store, batch_size=6)
    indices = [17, 3, 40, 0, 18]
    again = sampler(store, batch_size=6)
    parts = [sampler(store, batch_size=3, rank=rank, world_size=2) for rank in (0, 1)]
    for index in indices:
        expected = whole.batch(index).actions
        assert torch.equal(again.batch(index).actions, expected)
        assert torch.equal(torch.cat([part.batch(index).actions for part in parts]), expected)
    assert not np.array_equal(sampler(store, seed=2).episodes(0), sampler(store).episodes(0))


def test_rows_begin_at_windows_spread_over_their_first_episode(store: Store) -> None:
    longest = sampler(store, batch_size=6, min_length=12)  # of 3 windows
    assert longest.windows(0).starts.tolist() == [0, 0, 4, 4, 8, 8]


def test_invalid_use_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="sample episodes"):
        sampler(store, sampling="steps")
    with pytest.raises(ValueError, match="0 or more"):
        sampler(store).windows(-1)
