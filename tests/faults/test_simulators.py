"""Episodes whose simulators fail are repeated with their seeds, then left out of the scores."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError, Store
from datamodules.collect import collect
from datamodules.collector import Collector, RandomExpert
from rate.envs.serial_vector import SerialVectorEnv
from rate.envs.spec import EnvironmentSpec
from rate.envs.worker_vector import WorkerVectorEnv
from rate.workers import pool
from rate.workers.child import WorkerFailure
from rate.workers.pool import WorkerPool
from trainers import episode_rows
from trainers.episode_rows import MOST_FAILURES
from trainers.rollout import rollout
from trainers.scores import scores

SEEDS = range(3, 11)


class Faulty(gymnasium.Env[Any, Any]):
    """Episodes of `seed` steps with reward 1; one of a seed in `faults` fails at its last step.

    Args:
        faults: The number of times that each seed fails.
        marks: A folder in which failures leave files, across processes.
        kind: What happens.
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, faults: dict[int, int], marks: Path, kind: str) -> None:
        self.faults, self.marks, self.kind = faults, marks, kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self.seed, self.left = seed, seed
        if self.kind == "reset":
            self._fail()
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        observation, reward = np.zeros(2, np.float32), 1.0
        if not self.left and self.kind != "reset" and self._fail():
            if self.kind == "shape":
                observation = np.zeros(3, np.float32)
            reward = np.nan
        return observation, reward, not self.left, False, {"success": 1.0}

    def _fail(self) -> bool:
        for number in range(self.faults.get(self.seed, 0)):
            try:
                (self.marks / f"{self.seed}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            if self.kind == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind in ("raise", "reset"):
                raise ValueError("a bad day")
            return True
        return False


class Still:
    """A policy of any number of rows that always takes action 0."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def reset(self, *_: Any, **__: Any) -> None:
        pass

    def act(self, *_: Any) -> Any:
        return np.zeros(self.rows, np.int64)


def play(faults: dict[int, int], marks: Path, kind: str, workers: int) -> Any:
    make = partial(Faulty, faults, marks, kind)
    env: Any = WorkerVectorEnv(make, 3, workers) if workers else SerialVectorEnv(make, 3)
    with closing(env):
        groups = env.groups(2) if workers else [env]
        return rollout([Still(group.num_envs) for group in groups], groups, SEEDS)


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("raise", 0), ("reset", 0), ("nan", 0), ("shape", 0), ("raise", 2)],
)
def test_a_failed_episode_is_repeated_then_left_out(
    kind: str, workers: int, tmp_path: Path
) -> None:
    often = MOST_FAILURES + 1
    found = play({4: 1, 9: often, 10: 2}, tmp_path, kind, workers)
    assert len(list(tmp_path.iterdir())) == 3 + often
    held = np.array([seed != 9 for seed in SEEDS])
    assert found.returns[held].tolist() == [seed for seed in SEEDS if seed != 9]
    assert np.isnan(found.returns[~held]).all()
    assert {"invalid": 1, "success": 1.0}.items() <= scores(found).items()


@pytest.mark.long
def test_an_episode_whose_simulator_dies_is_repeated_then_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode_rows, "MOST_FAILURES", 1)
    found = play({4: 1, 9: 2}, tmp_path, "die", 3)
    assert found.returns[[0, 1]].tolist() == [3, 4]
    assert np.isnan(found.returns).tolist() == [seed == 9 for seed in SEEDS]


def test_an_environment_that_always_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bad day"):
        play(dict.fromkeys(SEEDS, 100), tmp_path, "raise", 0)
    assert len(list(tmp_path.iterdir())) == MOST_FAILURES + 1


class Restarted:
    """A worker that has died."""

    def start(self) -> None:
        pass


def test_restarts_are_counted_within_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: now[0])
    workers: Any = WorkerPool(max_restarts=3)
    for _ in range(12):
        now[0] += 1300
        workers.restart(Restarted(), "it", "it died")
    with pytest.raises(WorkerFailure, match="restarted 3 times within an hour already"):
        workers.restart(Restarted(), "it", "it died")


@pytest.mark.long
def test_a_collection_goes_on_past_episodes_that_are_not_valid(tmp_path: Path) -> None:
    """One is played again; one that stays invalid is left out; two are an error."""
    seeds = range(3, 53)
    spec = EnvironmentSpec("faulty", Faulty.observation_space, Faulty.action_space, 1.0)

    def run(name: str, faults: dict[int, int], workers: int) -> Store:
        marks = tmp_path / f"marks-{name}"
        marks.mkdir()
        make_env = partial(Faulty, faults, marks, "nan")
        make = partial(Collector, make_env, RandomExpert)
        known = {"source": name}
        return Store.open(
            collect(tmp_path, name, make, seeds=seeds, spec=spec, provenance=known, workers=workers)
        )

    whole = run("whole", {}, 1)
    again = run("again", {4: 1, 9: 2}, 2)
    assert np.array_equal(again.arrays["rewards"], whole.arrays["rewards"])
    with pytest.warns(UserWarning, match="episode 9 is left out: it failed 3 times"):
        short = run("short", {9: 100}, 2)
    kept = [seed for seed in seeds if seed != 9]
    assert short.lengths.tolist() == kept
    assert short.arrays["seeds"].tolist() == kept
    assert short.manifest["provenance"]["skipped"] == 1
    warned = pytest.warns(UserWarning, match="episode 4 is left out")
    with warned, pytest.raises(DatasetError, match="seed 9 failed 3 times"):
        run("bad", {4: 100, 9: 100}, 1)
