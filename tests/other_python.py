"""Another Python: this one without its packages, but for NumPy and a small `gym`, an old one."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np

OLD_GYM = """\
    import os, sys, time
    import numpy as np


    class Box:
        def __init__(self, low, high, shape, dtype):
            self.low, self.high = np.full(shape, low, dtype), np.full(shape, high, dtype)
            self.shape, self.dtype = shape, np.dtype(dtype)


    class Discrete:
        shape, dtype = (), np.dtype(np.int64)

        def __init__(self, n):
            self.n = n


    class Tuple:
        def __init__(self, *parts):
            self.spaces = parts


    class Dict:
        def __init__(self, **parts):
            self.spaces = parts


    class Count:
        \"\"\"Tells the seed, byte by byte, and the steps; ends after 3 + seed % 4 of them.\"\"\"

        def __init__(self, misdeed="", once="", start=0):
            for name in ("torch", "gymnasium"):
                try:
                    __import__(name)
                except ImportError:
                    continue
                raise RuntimeError(name + " can be imported here")
            if misdeed == "made":
                raise ValueError("no licence")
            self.observation_space = Box(0, 255, (9,), np.uint8)
            if misdeed == "tuple":
                self.observation_space = Tuple(Discrete(2), Discrete(3))
            if misdeed == "nested":
                self.observation_space = Dict(a=Dict(b=Discrete(2)))
            self.action_space = Discrete(4)
            self.misdeed, self.once, self.start = misdeed, once, start

        def seed(self, seed=None):
            self.value = seed

        def reset(self):
            self.time = self.start
            return self.see()

        def see(self):
            print("\\x00\\xff a simulator that prints" * 100)
            seen = [(self.value >> (8 * i)) & 255 for i in range(8)] + [self.time]
            size, kind = (3 if self.misdeed == "shape" else 9), np.uint8
            return np.array(seen[:size], np.int64 if self.misdeed == "kind" else kind)

        def step(self, action):
            assert type(action) is int, action
            self.time += 1
            if self.value == 13 and self.time == 2 and not os.path.exists(self.once):
                if self.once:
                    open(self.once, "w").close()
                self.misbehave()
            done = self.time == 3 + self.value % 4
            info = {"success": np.bool_(self.value % 2), "score": 0.5, "thing": object()}
            return self.see(), action + 0.25, done, info

        def misbehave(self):
            if self.misdeed == "exit":
                sys.exit(5)
            if self.misdeed == "hang":
                time.sleep(3600)
            if self.misdeed == "raise":
                raise KeyError("a bug")
            if self.misdeed == "junk":
                os.write(int(sys.argv[1]), b"not a message" * 9)

        def render(self, mode="human"):
            return np.full((2, 2, 3), self.time, np.uint8) if mode == "rgb_array" else None

        def close(self):
            pass


    class TimeLimit:
        def __init__(self, env, max_episode_steps):
            self.env, self._max_episode_steps = env, max_episode_steps
            self.observation_space, self.action_space = env.observation_space, env.action_space

        def seed(self, seed=None):
            self.env.seed(seed)

        def reset(self, **how):
            self.steps = 0
            return self.env.reset(**how)

        def step(self, action):
            observation, reward, done, info = self.env.step(action)
            self.steps += 1
            if self.steps >= self._max_episode_steps:
                info["TimeLimit.truncated"] = not done
                done = True
            return observation, reward, done, info

        def render(self, mode="human"):
            return self.env.render(mode)

        def close(self):
            self.env.close()


    def spec(name):
        if name != "Count-v0":
            raise LookupError("no id " + name)


    def make(name, **settings):
        spec(name)
        return TimeLimit(Count(**settings), 5)
"""


def make_other_python(folder: Path) -> str:
    """Make the other Python in a folder; returns the program."""
    packages = Path(np.__file__).parents[1]
    for part in ("numpy", "numpy.libs"):
        if (packages / part).exists():
            (folder / part).symlink_to(packages / part)
    (folder / "gym.py").write_text(textwrap.dedent(OLD_GYM))
    return write_program(folder / "python", f"PYTHONPATH={folder} exec {sys.executable} -S")


def write_program(path: Path, command: str) -> str:
    """A program that runs a command with its own arguments."""
    path.write_text(f'#!/bin/sh\n{command} "$@"\n')
    path.chmod(0o755)
    return str(path)
