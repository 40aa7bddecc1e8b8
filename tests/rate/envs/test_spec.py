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
    spaces.MultiBinary(3),
    spaces.MultiBinary([3]),
    spaces.MultiBinary([2, 4]),
    spaces.Box(-1, 1, ()),
    spaces.Box(0, 1, (3,), np.bool_),
    spaces.Dict({"image": PIXELS, "inner": spaces.Dict({"bit": spaces.Discrete(2)})}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_survive_json(space):
    spec = EnvironmentSpec("any", space, spaces.Discrete(2), 1.5)
    text = json.dumps(spec.to_dict(), allow_nan=False)
    assert EnvironmentSpec.from_dict(json.loads(text)) == spec


def test_the_keys_of_a_dictionary_keep_their_order():
    """Encoders follow this order: parts with equal spaces must not be exchanged."""
    space = spaces.Dict(b=spaces.Discrete(2), a=spaces.Discrete(2))
    again = space_from_dict(json.loads(json.dumps(space_to_dict(space))))
    assert list(again.spaces) == ["b", "a"]


OPTIONS = {"privileged": True, "noise": 0.25, "time_out": None, "level": "one", "walls": 12}


def test_options_survive_json():
    spec = EnvironmentSpec("any", PIXELS, spaces.Discrete(2), 1.5, OPTIONS)
    text = json.dumps(spec.to_dict(), allow_nan=False)
    again = EnvironmentSpec.from_dict(json.loads(text))
    assert again == spec
    assert again.options == OPTIONS
    assert [type(v) for v in again.options.values()] == [type(v) for v in OPTIONS.values()]
    assert EnvironmentSpec("any", PIXELS, spaces.Discrete(2), 1.5) != spec


def test_without_options_the_json_is_that_of_former_versions():
    """Older data sets and models can be read, and fingerprints do not change."""
    plain = EnvironmentSpec("any", PIXELS, spaces.Discrete(2), 1.5).to_dict()
    assert list(plain) == ["name", "observation_space", "action_space", "target_return"]
    assert EnvironmentSpec.from_dict(plain).options == {}


def test_options_are_a_copy():
    options = dict(OPTIONS)
    spec = EnvironmentSpec("any", PIXELS, spaces.Discrete(2), 1.5, options)
    spec.to_dict()["options"]["privileged"] = False
    assert spec.options["privileged"]


def test_options_must_be_a_dictionary():
    plain = EnvironmentSpec("any", PIXELS, spaces.Discrete(2), 1.5).to_dict()
    with pytest.raises(ValueError, match="incomplete"):
        EnvironmentSpec.from_dict({**plain, "options": None})


def test_equal_bounds_are_one_number():
    text = json.dumps(EnvironmentSpec("any", PIXELS, spaces.Discrete(2), 0.0).to_dict())
    assert len(text) < 300


def test_unsupported_spaces_are_refused():
    spec = EnvironmentSpec("any", spaces.Text(5), spaces.Discrete(2), 0.0)
    with pytest.raises(ValueError, match="Text"):
        spec.to_dict()
    with pytest.raises(ValueError, match="Graph"):
        space_from_dict({"type": "Graph"})
    with pytest.raises(ValueError, match="action_space"):
        EnvironmentSpec.from_dict({"name": "any", "observation_space": space_to_dict(PIXELS)})
