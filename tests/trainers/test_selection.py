"""Rollouts that select weights reuse their simulators and close them after training."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import trainers.train
from rate.envs.tmaze import TMazeVector
from rate.weights import load_model
from tests.trainers.conftest import MakeConfig
from tests.trainers.fakes import with_parts
from trainers.errors import Interrupted
from trainers.registry import get_environment
from trainers.train import train


class Kept:
    """Makes vector environments as an entry does, and records which are created and still open."""

    def __init__(self, tells_success: bool = True) -> None:
        self.made: list[tuple[int, int]] = []
        self.open = 0
        self.tells_success = tells_success

    def __call__(self, num_envs: int, length: int) -> Any:
        kept = self

        class Vector(TMazeVector):
            def step(self, actions: Any) -> Any:
                *result, info = super().step(actions)
                return *result, info if kept.tells_success else {}

            def close_extras(self, **_: Any) -> None:
                kept.open -= 1

        self.made.append((num_envs, length))
        self.open += 1
        return Vector(num_envs, length)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Replaces the vector environments of the T-Maze by counted ones."""
    vectors = Kept()
    entry = with_parts(get_environment("tmaze"), make_vector=vectors, num_envs=3)
    monkeypatch.setattr(trainers.train, "environment_of_run", lambda _: entry)
    return vectors


def test_simulators_are_created_once_and_closed(kept: Kept, make_config: MakeConfig) -> None:
    config = make_config(
        evaluation__every_n_steps=2,
        evaluation__selection_lengths=[6, 9],
        evaluation__selection_episodes=2,
    )
    seen: list[int] = []
    result = train(
        config, report=lambda phase, *_: seen.append(kept.open) if phase == "training" else None
    )
    assert max(seen) == 2
    chosen = {(row["which"], row["online_evaluations"]) for row in result.rows}
    assert chosen == {("last", 0), ("best", 4)}
    # Four selections with two episodes and thus two rows; then the last and best weights.
    assert kept.made[:2] == [(2, 6), (2, 9)]
    assert set(kept.made[2:]) == {(3, 8)}
    assert kept.open == 0


def crash() -> None:
    raise RuntimeError("crash")


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("end", "error"), [(crash, RuntimeError), (stop, Interrupted)])
def test_simulators_are_closed_if_training_ends_early(
    kept: Kept, make_config: MakeConfig, end: Callable[[], None], error: type[BaseException]
) -> None:
    opened: list[int] = []

    def report(phase: str, step: int, total: int) -> None:
        opened.append(kept.open)
        if step == 6:
            end()

    with pytest.raises(error):
        train(make_config(), report=report)
    assert opened[-1] == 1
    assert kept.open == 0


@pytest.mark.parametrize("tells", [True, False])
def test_weights_are_selected_by_success_or_else_by_return(
    kept: Kept, make_config: MakeConfig, tells: bool
) -> None:
    kept.tells_success = tells
    folder = train(make_config(evaluation__selection_episodes=5)).folder
    extra = load_model(folder / "checkpoints" / "best").extra
    (row,) = extra["selection"]
    assert (row["success"] is not None) == tells
    assert row["episodes"] == 5
    header = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert ("selection/success@6" in header) == tells
    assert "selection/return@6" in header
