"""Views of a store with one key of its observations."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError, Episode, write_store
from rate.envs.spec import EnvironmentSpec

PARTS = {
    "vector": spaces.Box(-9, 9, (2,), np.float32),
    "privileged": spaces.Box(-1, 1, (1,), np.float32),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
}


@pytest.fixture
def privileged(tmp_path):
    """A store whose observations are a dictionary."""
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            {
                "vector": rng.uniform(-9, 9, (steps, 2)).astype(np.float32),
                "privileged": rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
                "image": rng.integers(0, 256, (steps, 4, 4, 3), dtype=np.uint8),
            },
            rng.integers(0, 3, steps),
            np.ones(steps),
            True,
            False,
            seed=steps,
        )
        for steps in (3, 5)
    ]
    spec = EnvironmentSpec("privileged", spaces.Dict(PARTS), spaces.Discrete(3), 1.0)
    return write_store(episodes, tmp_path / "s", spec, {})


@pytest.mark.parametrize("key", ["vector", "image"])
def test_a_view_of_one_part_of_the_observations(privileged, key):
    view = privileged.observing(PARTS[key])
    assert view.spec.observation_space == PARTS[key]
    assert view.spec.name == "privileged"
    assert view.observations is privileged.observations[key]
    assert "privileged" not in "".join(view.arrays)
    assert view.fingerprint == privileged.fingerprint
    assert view.lengths.tolist() == [3, 5]
    whole, part = privileged.episode(1), view.episode(1)
    np.testing.assert_array_equal(part.observations, whole.observations[key])
    np.testing.assert_array_equal(part.actions, whole.actions)
    assert part.seed == 5
    assert list(view.normalisation) == ([""] if key == "vector" else [])
    if key == "vector":
        np.testing.assert_array_equal(view.normalisation[""], privileged.normalisation["vector"])
    assert view.observing(PARTS[key]) is view
    assert privileged.observing(spaces.Dict(PARTS)) is privileged
    assert set(privileged.observations) == set(PARTS)  # the store itself is unchanged


def test_a_view_of_a_missing_space_is_refused(privileged, store):
    other = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    with pytest.raises(
        DatasetError, match=r"is Dict\(.*, but Box\(0, 255, \(8, 8, 3\), uint8\) is w"
    ):
        privileged.observing(other)
    with pytest.raises(DatasetError, match=r"observation_space of the data is Box\(-inf.*but Dict"):
        store.observing(spaces.Dict(PARTS))


def test_an_ambiguous_view_is_refused(tmp_path):
    two = spaces.Dict({"left": PARTS["privileged"], "right": PARTS["privileged"]})
    zeros = np.zeros((2, 1), np.float32)
    episode = Episode({"left": zeros, "right": zeros}, np.zeros(2, int), np.zeros(2), True, False)
    spec = EnvironmentSpec("twins", two, spaces.Discrete(3), 1.0)
    with pytest.raises(DatasetError, match="which left and right have"):
        write_store([episode], tmp_path / "s", spec, {}).observing(PARTS["privileged"])
