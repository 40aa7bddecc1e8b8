from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from datamodules import Episode, write_store
from rate.envs.spec import EnvironmentSpec

_SPEC = EnvironmentSpec(
    "walker",
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(-1, 1, (2,), np.float32),
    target_return=10.0,
)
_LENGTHS = [5, 1, 9, 4, 7, 9, 3, 6]


def _make_episode(length: int, number: int = 0) -> Episode:
    """Returns an episode whose observations are its number and the step."""
    rng = np.random.default_rng(number)
    steps = np.arange(length)
    return Episode(
        observations=np.stack(
            [np.full(length, number), steps, rng.standard_normal(length)], axis=1
        ).astype(np.float32),
        actions=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        rewards=rng.standard_normal(length),
        terminated=number % 2 == 0,
        truncated=number % 2 == 1,
        seed=number,
    )


def _pack(path, lengths=_LENGTHS):
    episodes = (_make_episode(length, number) for number, length in enumerate(lengths))
    return write_store(episodes, path, _SPEC, {"source": "a test"})


@pytest.fixture(scope="session")
def spec():
    return _SPEC


@pytest.fixture(scope="session")
def lengths():
    return _LENGTHS


@pytest.fixture(scope="session")
def make_episode():
    return _make_episode


@pytest.fixture(scope="session")
def make_store():
    """Returns a function that writes a store of episodes of the given lengths."""
    return _pack


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return _pack(tmp_path_factory.mktemp("data") / "walker")


@pytest.fixture
def own_store(tmp_path):
    """A store that the test may damage."""
    return _pack(tmp_path / "walker")


@pytest.fixture
def counted():
    """Writes a store of episodes whose observation is the number of the step, counted from 1."""

    def make(folder, lengths):
        box = spaces.Box(0, 1e6, (1,), np.float32)
        spec = EnvironmentSpec("counted", box, spaces.Discrete(2), 1.0)
        episodes = [
            Episode(
                np.arange(1, steps + 1, dtype=np.float32)[:, None],
                np.zeros(steps, np.int64),
                np.ones(steps),
                True,
                False,
            )
            for steps in lengths
        ]
        return write_store(episodes, folder / "counted", spec, {})

    return make
