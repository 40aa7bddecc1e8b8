"""Differences between spaces, for messages."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from rate.spaces import differences


def test_differences_of_spaces() -> None:
    box = spaces.Box(-1, 1, (2,), np.float32)
    assert differences(box, box) == []
    assert differences(spaces.Box(-2, 1, (2,), np.float32), box) == [
        "bounds -2 to 1 instead of -1 to 1"
    ]
    assert differences(spaces.Discrete(2), spaces.Discrete(3)) == [
        "bounds 0 to 1 instead of 0 to 2"
    ]
    both = spaces.Dict(a=box, b=spaces.Discrete(2))
    assert differences(both, spaces.Dict(a=spaces.Box(-1, 1, (3,)), c=box)) == [
        "no 'c'",
        "'b', which is not wanted",
        "'a' of shape (2,) instead of (3,)",
    ]
    assert differences(box, spaces.Discrete(2)) == [f"{box} instead of Discrete(2)"]
