"""The spaces of RL Unplugged's DMLab data (Gulcehre et al. 2020), which features do not tell.

Observations are `pixels` and what the agent (R2D2) was also given: `last_action` and `last_reward`,
0 at first. All levels have the same 15 actions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from datamodules.readers.tfds_features import StepFeature
from datamodules.source import UNKNOWN_RETURN
from rate.envs.spec import EnvironmentSpec

_NAME = "rlu_dmlab"  # of the data sets in TensorFlow Datasets: rlu_dmlab_LEVEL
_NUM_ACTIONS = 15
_FEATURES = {
    "action": (),
    "observation/last_action": (),
    "observation/last_reward": (),
    "observation/pixels": (72, 96, 3),
}


def dmlab_spec(name: str, features: Mapping[str, StepFeature]) -> EnvironmentSpec | None:
    """Returns the specification of such data; None for other data.

    Args:
        name: The name of the data set.
        features: The features of a step, by path.
    """
    shapes = {key: feature.shape for key, feature in features.items() if key in _FEATURES}
    others = [key for key in features if key.startswith("observation") and key not in _FEATURES]
    if not name.startswith(_NAME) or shapes != _FEATURES or others:
        return None
    parts: dict[str, spaces.Space[object]] = {
        "last_action": spaces.Discrete(_NUM_ACTIONS),
        "last_reward": spaces.Box(-np.inf, np.inf, (1,), np.float32),
        "pixels": spaces.Box(0, 255, _FEATURES["observation/pixels"], np.uint8),
    }
    seen = spaces.Dict(list(parts.items()))
    return EnvironmentSpec("rlds", seen, spaces.Discrete(_NUM_ACTIONS), UNKNOWN_RETURN)
