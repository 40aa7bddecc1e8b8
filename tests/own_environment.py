"""An environment with a record, as a package brings one: settings, an expert, a length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rate.envs.spec import EnvironmentSpec
from trainers.environment import Environment

OBSERVATION = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
ACTION = gym.spaces.Discrete(2)


@dataclass(frozen=True)
class CorridorOptions:
    """The environment's settings, as options `--env.NAME`.

    Attributes:
        cue_steps: At how many steps the cue is shown.
    """

    cue_steps: int = 1


class Corridor(gym.Env[Any, Any]):
    """A cue of +1 or -1 is shown at the start; the last action should be 1 or 0 accordingly."""

    observation_space, action_space = OBSERVATION, ACTION

    def __init__(self, options: CorridorOptions, length: int = 20) -> None:
        self.options, self.max_steps = options, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        ended = self.time == self.max_steps
        success = float(ended and int(action) == self.cue)
        info = {"success": success} if ended else {}
        return self._observe(), success, ended, False, info

    def _observe(self) -> Any:
        shown = (2 * self.cue - 1) * float(self.time < self.options.cue_steps)
        return np.array([shown, self.time / self.max_steps], np.float32)


class CorridorExpert:
    """Takes random actions, and the right one at the end."""

    def reset(self, env: gym.Env[Any, Any], seed: int) -> None:
        self.env, self.random = env, np.random.default_rng(seed)

    def act(self) -> int:
        env: Any = self.env.unwrapped
        return env.cue if env.time == env.max_steps - 1 else int(self.random.integers(2))


class Record(Environment):
    """What training needs to know of it."""

    name = "corridor"
    options = CorridorOptions
    env = Corridor

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        """Returns the environment as models see it, with the return to ask for."""
        return EnvironmentSpec("corridor", OBSERVATION, ACTION, target_return=1.0)

    def expert(self, noise: float) -> CorridorExpert:
        """Returns what plays the data."""
        return CorridorExpert()
