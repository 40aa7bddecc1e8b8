"""Vector environments and policies with known rollouts."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rate.envs.autoreset import WAITING
from trainers.environment import Environment


class Countdown(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Row i ends after i + 1 steps; later rewards and flags must be ignored."""

    metadata = WAITING

    def __init__(self, num_envs: int, tells: bool = True) -> None:
        self.num_envs, self.tells, self.time = num_envs, tells, 0
        self.seeds: Any = None

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.seeds, self.time = seed, 0
        return np.zeros((self.num_envs, 4), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.time += 1
        rows = np.arange(self.num_envs)
        ended = self.time == rows + 1
        info = {"success": (rows % 2 == 0) == ended} if self.tells else {}
        observations = np.zeros((self.num_envs, 4), np.float32)
        return observations, np.ones(self.num_envs), ended & (rows < 2), ended & (rows >= 2), info


class Numbers(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Episodes with 1 + seed % 5 steps; each step has the seed as its reward.

    Rewards and flags of a finished row change at every step and must be ignored. `crashes` maps
    an episode to a number of steps, after which the episode is restarted once. With `in_reset`,
    the restart is reported at the next reset of any row.
    """

    metadata = WAITING

    def __init__(self, num_envs: int, crashes: dict[int, int], in_reset: bool = False) -> None:
        self.num_envs, self.crashes, self.in_reset = num_envs, dict(crashes), in_reset
        self.begun: list[int] = []
        self.seeds, self.time = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.ended = np.ones(num_envs, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        assert self.ended[mask].all(), "an episode was cut off by a reset"
        restarted = self._crash() if self.in_reset else np.zeros(self.num_envs, bool)
        self.seeds[mask], self.time[mask] = np.asarray(seed)[mask], 0
        self.ended &= ~mask
        self.begun += self.seeds[mask].tolist()
        return self._observe(), {"restarted": restarted}

    def step(self, actions: Any) -> Any:
        self.time += 1
        restarted = np.zeros(self.num_envs, bool) if self.in_reset else self._crash()
        ended = ~restarted & (self.time >= 1 + self.seeds % 5)
        self.ended |= ended
        info = {"number": self.seeds + 1000 * (self.time - 1 - self.seeds % 5), "text": ["x"]}
        info |= {"_number": ended, "restarted": restarted}
        return self._observe(), 1.0 * self.seeds, ended, np.zeros_like(ended), info

    def _crash(self) -> Any:
        due = [self.crashes.get(seed) == t for seed, t in zip(self.seeds, self.time, strict=True)]
        restarted = np.array(due) & ~self.ended
        self.time[restarted] = 0
        for seed in self.seeds[restarted]:
            del self.crashes[seed]
        return restarted

    def _observe(self) -> Any:
        return np.stack([self.seeds, self.time], axis=1)


class Idle:
    """A policy that records its resets."""

    def __init__(self) -> None:
        self.resets, self.rewards = 0, 0

    def reset(self, rows: Any = None, episodes: Any = None) -> None:
        self.resets += 1

    def act(self, observations: Any, rewards: Any = None) -> Any:
        self.rewards += rewards is not None
        return np.zeros(len(observations), np.int64)


class Counting:
    """A policy whose actions are the number of steps of the episode, modulo 4."""

    def __init__(self, num_envs: int) -> None:
        self.time = np.zeros(num_envs, np.int64)

    def reset(self, rows: Any = None, episodes: Any = None) -> None:
        self.time[slice(None) if rows is None else rows] = 0

    def act(self, observations: Any, rewards: Any = None) -> Any:
        self.time += 1
        return (self.time - 1) % 4


class Punctual(Counting):
    """Counts steps and asserts that the count agrees with that of `Numbers`."""

    def act(self, observations: Any, rewards: Any = None) -> Any:
        going = observations[:, 1] < 1 + observations[:, 0] % 5
        assert (self.time == observations[:, 1])[going].all()
        return super().act(observations, rewards)


def with_parts(environment: Environment, **parts: Any) -> Environment:
    """Returns an environment record with some attributes replaced, for example `make_vector`."""
    parts = {name: staticmethod(part) if callable(part) else part for name, part in parts.items()}
    return type("Changed", (type(environment),), parts)(**vars(environment))
