"""Simulators for the tests of worker processes: well-behaved and otherwise.

Not in the test module itself, so that worker processes can import them without pytest.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rate.errors import ConfigError, UserError


class Noise(gymnasium.Env[Any, Any]):
    """Random images that depend on the seed and all actions; an episode has `3 + seed % 4` steps.

    `misdeed` happens at step 2 of episodes whose seed is 13, if there is no file `once`, which it
    then leaves behind.
    """

    def __init__(
        self,
        keyed: bool = False,
        action_space: gymnasium.Space[Any] | None = None,
        misdeed: str = "",
        once: str | Path = os.devnull,
        shape: tuple[int, ...] = (3, 4, 5),
    ) -> None:
        image = spaces.Box(0, 255, shape, np.uint8)
        privileged = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.keyed, self.misdeed, self.once = keyed, misdeed, Path(once)
        self.observation_space = spaces.Dict(image=image, privileged=privileged) if keyed else image
        self.action_space = action_space or spaces.Discrete(4)
        self.render_mode = "rgb_array"
        self._seed = self._time = 0
        if misdeed == "crash when made":
            os._exit(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed, self._time = seed, 0
        return self._observe(), {"ignored": 1}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"not an action: {action!r}")
        self._time += 1
        if self._seed == 13 and self._time == 2:
            self._misbehave()
        self.np_random.random(1 + int(np.sum(action)) % 3)
        terminated, truncated = self._time == 3 + self._seed % 4, False
        if terminated and self._seed % 2:
            terminated, truncated = False, True
        info = {"success": bool(self._seed % 2), "steps": self._time, "score": np.float32(0.5)}
        return self._observe(), float(self.np_random.random()), terminated, truncated, info

    def render(self):
        return np.full((2, 2, 3), self._time, np.uint8)

    def _observe(self):
        box = self.observation_space["image"] if self.keyed else self.observation_space
        image = self.np_random.integers(0, 256, box.shape, dtype=np.uint8)
        if not self.keyed:
            return image
        return {"image": image, "privileged": self.np_random.random(2, dtype=np.float32)}

    def _misbehave(self):
        if str(self.once) != os.devnull:
            if self.once.exists():
                return
            self.once.touch()
        if self.misdeed == "segfault":
            ctypes.string_at(0)
        elif self.misdeed == "kill":
            os.kill(os.getpid(), 9)
        elif self.misdeed == "exit":
            sys.exit(5)
        elif self.misdeed == "hang":
            time.sleep(3600)
        elif self.misdeed == "user error":
            raise UserError("the engine is gone")
        elif self.misdeed == "bug":
            raise KeyError("a bug")


def refuse():
    raise ConfigError("env.level 'x' is no level; take one of a, b")


def stumble():
    return {}["missing"]


class Trivial(gymnasium.Env[Any, Any]):
    """Frames without any work."""

    def __init__(self, shape: tuple[int, ...] = (3, 64, 112)) -> None:
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(4)
        self._frame = np.zeros(shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        return self._frame, {}

    def step(self, action):
        return self._frame, 0.0, False, False, {}
