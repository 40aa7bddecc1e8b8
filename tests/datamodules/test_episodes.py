from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from datamodules.episodes import DatasetError, Episode, validate_episode
from rate.envs.spec import EnvironmentSpec

SPEC = EnvironmentSpec(
    "any", spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([2, 3]), target_return=1.0
)


def episode(**changes):
    base = Episode(
        observations=np.zeros((4, 2), np.float32),
        actions=np.zeros((4, 2), np.int64),
        rewards=np.zeros(4),
        terminated=True,
        truncated=False,
    )
    return replace(base, **changes)


def with_value(shape, dtype, place, value):
    array = np.zeros(shape, dtype)
    array[place] = value
    return array


def test_a_valid_episode_passes():
    validate_episode(episode(), SPEC, "source", 0)
    assert len(episode()) == 4


def test_rounding_at_a_float_bound_is_accepted():
    observations = with_value(
        (4, 2), np.float32, (1, 1), np.nextafter(np.float32(1), np.float32(2))
    )
    validate_episode(episode(observations=observations), SPEC, "source", 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((0, 2), int)}, "no steps"),
        ({"observations": np.zeros((5, 2), np.float32)}, "observations have 5 steps.*4 actions"),
        ({"observations": np.zeros((4, 3), np.float32)}, r"observations have shape \(3,\)"),
        ({"observations": np.zeros((4, 2), "U1")}, "observations are <U1"),
        ({"observations": {"a": np.zeros((4, 2))}}, "observation keys"),
        (
            {"observations": with_value((4, 2), np.float32, (2, 1), np.nan)},
            "observations: the value at step 2 is not finite",
        ),
        (
            {"observations": with_value((4, 2), np.float32, (3, 0), 1.5)},
            "observations: 1.5 at step 3 is outside",
        ),
        ({"actions": np.zeros((4, 2), np.float32)}, "actions are float32.*integers"),
        ({"actions": with_value((4, 2), int, (1, 0), 2)}, "actions: 2 at step 1 is outside"),
        ({"actions": with_value((4, 2), int, (1, 0), -1)}, "actions: -1 at step 1 is outside"),
        ({"rewards": np.zeros(3)}, r"rewards have shape \(3,\)"),
        ({"rewards": with_value((4,), float, 1, np.inf)}, "rewards: the value at step 1"),
    ],
)
def test_errors_name_source_episode_and_step(changes, message):
    with pytest.raises(DatasetError, match=f"^recordings.h5, episode 12.*{message}"):
        validate_episode(episode(**changes), SPEC, "recordings.h5", 12)


def test_discrete_bounds():
    spec = EnvironmentSpec("any", spaces.Discrete(3, start=-1), spaces.Discrete(2), 0.0)
    good = episode(observations=np.array([-1, 0, 1, 1]), actions=np.array([0, 1, 0, 1]))
    validate_episode(good, spec, "source", 0)
    with pytest.raises(DatasetError, match="actions: 2 at step 3"):
        validate_episode(replace(good, actions=np.array([0, 1, 0, 2])), spec, "source", 0)
