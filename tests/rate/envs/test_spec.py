from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from rate.envs.spec import EnvironmentSpec, space_from_dict, space_to_dict

PIXELS = spaces.Box(0, 255, (64, 64, 3), np.uint8)
SPACES = [
    PIXELS,
    spaces.Box(-np.inf, np.inf, (17,), np.float32),
    spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)),
    spaces.Box(np.float32(-0.1), np.float32(0.3), (2, 2), np.float32),
    spaces.Box(-5, 9, (3,), np.int64),
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 5]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [2, 3]])),
    spaces.Dict({"image": PIXELS, "inner": spaces.Dict({"bit": spaces.Discrete(2)})}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_survive_json(space):
    spec = EnvironmentSpec("any", space, spaces.Discrete(2), 1.5)
    text = json.dumps(spec.to_dict(), allow_nan=False)
    assert EnvironmentSpec.from_dict(json.loads(text)) == spec


def test_equal_bounds_are_one_number():
    text = json.dumps(EnvironmentSpec("any", PIXELS, spaces.Discrete(2), 0.0).to_dict())
    assert len(text) < 300


def test_unknown_spaces_are_refused_by_name():
    spec = EnvironmentSpec("any", spaces.Text(5), spaces.Discrete(2), 0.0)
    with pytest.raises(ValueError, match="Text"):
        spec.to_dict()
    with pytest.raises(ValueError, match="Graph"):
        space_from_dict({"type": "Graph"})
    with pytest.raises(ValueError, match="action_space"):
        EnvironmentSpec.from_dict({"name": "any", "observation_space": space_to_dict(PIXELS)})
