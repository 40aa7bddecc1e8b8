"""The distance between memories after filler, and its place in the results of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from rate.analysis.memory import memory_vector, spread
from rate.analysis.retention import FILLER, retention
from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import K, make_batch, make_model
from tests.trainers.conftest import MakeConfig
from trainers.run_result import finished_result
from trainers.train import train

EPISODES = 5


@pytest.fixture(autouse=True)
def _short_filler() -> None:
    """Here, memory is measured after as many segments as in a run."""


def with_filler(openings: Batch, count: int) -> Batch:
    """The first segments of all episodes, and `count` times the second one of the first."""
    filler = openings.take(torch.zeros(EPISODES, dtype=torch.int64)).steps(K, 2 * K)
    pieces = [openings.steps(0, K)]
    for number in range(count):
        pieces.append(replace(filler, timesteps=filler.timesteps + K * number))
    columns = [[getattr(piece, name) for piece in pieces] for name in Batch.__annotations__]
    joined = [None if parts[0] is None else torch.cat(parts, dim=1) for parts in columns]
    return Batch(*joined)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["rate_cache", "trxl_short_cache", "elmur", "gru_with_timesteps", "shm", "own"]
)
def test_the_distance_is_that_of_the_states_after_the_filler(name: str) -> None:
    model = make_model(name)
    openings = make_batch(model, [2 * K] * EPISODES)
    found = retention(model, openings, (0, 1, 3))
    for count, distance in zip((0, 1, 3), found, strict=True):
        with torch.no_grad():
            _, state = model.features(with_filler(openings, count))
        assert distance == pytest.approx(float(spread(memory_vector(state))), abs=1e-5)
    assert found[0] > 1e-3


def forgetful(leak: float) -> SequenceModel:
    """Leaky sums of tokens: after n steps `leak**n` is left of the first segment."""
    return make_model("own", leak=leak)


def test_what_is_forgotten_has_no_distance() -> None:
    openings = make_batch(forgetful(0.5), [2 * K] * EPISODES)
    assert retention(forgetful(0.5), openings)[-1] < 1e-6
    equal = openings.take(torch.zeros(EPISODES, dtype=torch.int64))
    assert max(retention(forgetful(0.99), equal)) < 1e-6


def test_a_run_reports_the_distances_of_its_weights(make_config: MakeConfig) -> None:
    config = make_config()
    result = train(config)
    content = json.loads((result.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert content["memory"] == result.memory
    assert [(row["which"], row["filler"]) for row in result.memory] == [
        ("last", list(FILLER)),
        ("best", list(FILLER)),
    ]
    assert all(len(row["distance"]) == len(FILLER) for row in result.memory)
    finished = finished_result(result.folder, config)
    assert finished is not None
    assert finished.memory == result.memory


@pytest.mark.parametrize(
    "changes",
    [
        {"data__max_length": 7, "training__segments": 1},  # no episode of two segments
        {"model__context_length": 12, "training__segments": 1},
    ],
)
def test_without_episodes_of_two_segments_there_is_none(
    make_config: MakeConfig, changes: dict[str, Any]
) -> None:
    settings = {"training__max_steps": 1, "evaluation__every_n_steps": 0, **changes}
    assert train(make_config(**settings)).memory == []
