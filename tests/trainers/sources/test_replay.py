"""The replay: the newest unrolls, priorities, files, and what is left after a crash."""

from __future__ import annotations

from collections import Counter, namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rate.batch import Batch
from rate.errors import ConfigError
from trainers.errors import TrainingError
from trainers.sources.replay import SequenceReplay

STEPS = 4


def unrolls(first: int, count: int, empty: int | None = None) -> Batch:
    """Unrolls whose rewards are their numbers; one of them may have no step."""
    mask = torch.ones(count, STEPS, dtype=torch.bool)
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    if empty is not None:
        mask[empty] = False
        numbers = torch.cat((numbers[:empty], numbers[empty : empty + 1], numbers[empty:]))[:count]
    zeros = torch.zeros(count, STEPS, dtype=torch.bool)
    return Batch(
        observations={
            "place": torch.rand(count, STEPS, 2),
            "cue": numbers.long()[:, None].expand(-1, STEPS),
        },
        actions=torch.zeros(count, STEPS, dtype=torch.int64),
        returns_to_go=torch.zeros(count, STEPS, 1),
        timesteps=torch.arange(STEPS).expand(count, -1),
        mask=mask,
        rewards=numbers[:, None].expand(-1, STEPS),
        terminated=zeros,
        truncated=zeros,
        following=zeros,
        initial={"hidden": numbers[:, None].expand(-1, 3)},
    )


def replay_of(folder: Path, **changes: Any) -> SequenceReplay:
    settings = {"capacity": 5, "spare": 4, "seed": 3, **changes}
    return SequenceReplay(folder / "replay", **settings)


def seen(replay: SequenceReplay, draws: int = 40, size: int = 25) -> Counter[int]:
    found: Counter[int] = Counter()
    for index in range(draws):
        batch, numbers = replay.sample(index, size)
        assert batch.rewards[:, 0].tolist() == numbers.tolist()
        assert batch.initial["hidden"][:, 0].tolist() == numbers.tolist()
        assert batch.observations["cue"][:, 0].tolist() == numbers.tolist()
        found.update(numbers.tolist())
    return found


def test_it_holds_the_newest_unrolls_equally_often(tmp_path) -> None:
    replay = replay_of(tmp_path)
    for first in range(0, 24, 3):
        replay.add(unrolls(first, 3))
    counts = seen(replay)
    assert sorted(counts) == [19, 20, 21, 22, 23]
    assert all(160 < count < 240 for count in counts.values())
    assert len(replay) == 5


def test_unrolls_without_steps_are_left_out(tmp_path) -> None:
    replay = replay_of(tmp_path)
    replay.add(unrolls(0, 3, empty=1))
    assert replay.count == 2
    assert sorted(seen(replay)) == [0, 1]


def test_large_errors_are_sampled_more_often_and_weigh_less(tmp_path) -> None:
    replay = replay_of(tmp_path, priority_exponent=0.5, importance_exponent=1.0)
    replay.add(unrolls(0, 5))
    replay.update(np.arange(5), torch.tensor([4.0, 4.0, 4.0, 4.0, 64.0]))
    counts = seen(replay)
    assert counts[4] / counts[0] == pytest.approx(4.0, rel=0.2)  # (64 / 4) ^ 0.5
    batch, numbers = replay.sample(0, 25)
    weights = dict(zip(numbers.tolist(), batch.importance.tolist(), strict=True))
    assert weights[0] == pytest.approx(1.0)
    assert weights[4] == pytest.approx(0.25)


def test_errors_of_unrolls_that_are_gone_are_ignored(tmp_path) -> None:
    replay = replay_of(tmp_path, priority_exponent=1.0)
    replay.add(unrolls(0, 5))
    replay.add(unrolls(5, 3))
    before = replay.state_dict()["priorities"]
    replay.update(np.arange(3), torch.full((3,), 9.0))
    assert torch.equal(replay.state_dict()["priorities"], before)


def test_a_saved_replay_is_whole_although_later_unrolls_were_written(tmp_path) -> None:
    replay = replay_of(tmp_path, priority_exponent=0.7)
    replay.add(unrolls(0, 8))
    replay.update(np.arange(3, 8), torch.rand(5))
    state = replay.state_dict()
    expected = [replay.sample(index, 6) for index in range(3)]
    replay.add(unrolls(50, 4))  # as many as there are spare rows
    again = replay_of(tmp_path, priority_exponent=0.7)
    again.load_state_dict(state)
    for index, (batch, numbers) in enumerate(expected):
        found, mine = again.sample(index, 6)
        assert mine.tolist() == numbers.tolist()
        for tensor, other in zip(found.tensors(), batch.tensors(), strict=True):
            assert torch.equal(tensor, other)


def test_a_replay_larger_than_the_disk_is_refused(tmp_path, monkeypatch) -> None:
    usage = namedtuple("usage", "free")(1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match=r"online\.capacity=5 unrolls takes.*Lower online\.capa"):
        replay_of(tmp_path).add(unrolls(0, 3))


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_files_that_are_missing_or_others_are_told(tmp_path, damage) -> None:
    replay = replay_of(tmp_path)
    replay.add(unrolls(0, 3))
    state = replay.state_dict()
    file = tmp_path / "replay" / "1.npy"
    file.unlink()
    if damage == "other":
        np.save(file, np.zeros(3))
    with pytest.raises(TrainingError, match=r"replay/1\.npy.*The replay of a run is part of it"):
        replay_of(tmp_path).load_state_dict(state)


def test_the_rows_of_batches_are_joined(tmp_path) -> None:
    first, second = unrolls(0, 2), unrolls(5, 3)
    joined = Batch.joined([first, second])
    assert joined.rewards[:, 0].tolist() == [0, 1, 5, 6, 7]
    assert joined.observations["cue"][:, 0].tolist() == [0, 1, 5, 6, 7]
    assert joined.initial["hidden"][:, 0].tolist() == [0, 1, 5, 6, 7]
    half = replace(joined, importance=torch.arange(5.0)).steps(2, 4)
    assert half.initial is None
    assert half.importance.tolist() == [0, 1, 2, 3, 4]


def test_a_longer_time_between_checkpoints_is_refused(tmp_path) -> None:
    replay = replay_of(tmp_path)
    replay.add(unrolls(0, 3))
    with pytest.raises(TrainingError, match=r"have 9 rows, and a checkpoint every.*needs 11"):
        replay_of(tmp_path, spare=6).load_state_dict(replay.state_dict())
