"""A small environment with pixels, a collector for it, and ways to make them fail.

It is a separate module because worker processes import it.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.collect import collect
from datamodules.collector import Collector
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError

SPACE = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
        "privileged": spaces.Box(-1, 1, (2,), np.float32),
    }
)
SPEC = EnvironmentSpec("walk", SPACE, spaces.Discrete(3), 5.0)
SEEDS = [7, 3, 1 << 40, 12, 5, 9]


class Walk(gymnasium.Env):
    """An environment that depends on its seed only; action 1 has a reward."""

    observation_space, action_space = SPACE, SPEC.action_space

    def __init__(self, delay=0.0):
        self.delay = delay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.rng = np.random.default_rng(seed)
        self.left, self.total = 3 + int(self.rng.integers(5)), 0.0
        return self._observe(), {}

    def step(self, action):
        time.sleep(self.delay)
        self.left -= 1
        reward = 0.1 if action == 1 else 0.0
        self.total += reward
        info = {
            "success": self.total > 0.25,
            "items": np.int64(round(self.total * 10)),
            "text": "x",
        }
        return self._observe(), reward, False, self.left == 0, info

    def _observe(self):
        image = self.rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)
        return {"image": image, "privileged": self.rng.uniform(-1, 1, 2).astype(np.float32)}


class Chance:
    def reset(self, env, seed):
        self.rng = np.random.default_rng([seed, 1])

    def act(self):
        return int(self.rng.integers(3))


class Failing(Collector):
    """Logs its episodes; the first `failures[seed]` episodes of a seed fail as `how` says."""

    def __init__(self, log, failures, how, delay):
        super().__init__(partial(Walk, delay), Chance)
        self.log, self.failures, self.how = log, failures, how

    def collect(self, seed, on_step=None):
        with (self.log / str(seed)).open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len((self.log / str(seed)).read_text().split()) <= self.failures.get(seed, 0):
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as in native code
                time.sleep(600)
            raise {"bug": RuntimeError, "user": ConfigError}[self.how]("the engine has a problem")
        return super().collect(seed, on_step)


def make_collector():
    return Collector(Walk, Chance)


def run(folder, workers=1, log=None, failures=None, how="kill", delay=0.0, version=1, **kwargs):
    """Collects the episodes of `SEEDS`."""
    make = make_collector
    if log is not None:
        Path(log).mkdir(exist_ok=True)
        make = partial(Failing, Path(log), failures or {}, how, delay)
    return collect(
        folder,
        "walk",
        make,
        seeds=SEEDS,
        spec=SPEC,
        provenance={"source": "walk", "collector": f"chance-{version}"},
        workers=workers,
        **kwargs,
    )
