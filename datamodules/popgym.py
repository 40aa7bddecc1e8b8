"""Experts for POPGym: optimal for every task, or as good as memory allows."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.collector import NoisyExpert
from datamodules.popgym_experts.bandits import MultiarmedBandit
from datamodules.popgym_experts.boards import Battleship, MineSweeper
from datamodules.popgym_experts.cards import (
    Autoencode,
    Concentration,
    CountRecall,
    HigherLower,
    RepeatFirst,
    RepeatPrevious,
)
from datamodules.popgym_experts.control import CartPole, Pendulum
from datamodules.popgym_experts.mazes import Labyrinth
from rate.envs.popgym import Popgym
from rate.envs.popgym_tasks import TASKS

HOLD = 10


class TaskExpert(Protocol):
    """An expert for one episode of a task."""

    def __init__(self, task: Any) -> None: ...

    def act(self, seen: Any) -> Any:
        """Returns an action, given the last observation of the task."""


EXPERTS: dict[str, type[TaskExpert]] = {
    "Autoencode": Autoencode,
    "Battleship": Battleship,
    "Concentration": Concentration,
    "CountRecall": CountRecall,
    "HigherLower": HigherLower,
    "LabyrinthEscape": Labyrinth,
    "LabyrinthExplore": Labyrinth,
    "MineSweeper": MineSweeper,
    "MultiarmedBandit": MultiarmedBandit,
    "NoisyPositionOnlyCartPole": CartPole,
    "NoisyPositionOnlyPendulum": Pendulum,
    "PositionOnlyCartPole": CartPole,
    "PositionOnlyPendulum": Pendulum,
    "RepeatFirst": RepeatFirst,
    "RepeatPrevious": RepeatPrevious,
    "VelocityOnlyCartPole": CartPole,
}


class PopgymExpert(NoisyExpert[Popgym]):
    """Plays the expert of the task that the environment is.

    Args:
        noise: Probability to start random actions: for a step, or with continuous actions for up to
            `HOLD` steps with the same action, as single ones have little effect. Data with noise
            show how to return from states that the expert alone never reaches.

    Raises:
        ValueError: If `noise` is no probability.
    """

    plays = Popgym

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        super().reset(env, seed)
        self._expert = EXPERTS[TASKS[self._env.options.task].family](self._env.task)
        self._held, self._action = 0, None
        self._env.action_space.seed(seed % (1 << 32))

    def act(self) -> Any:
        """Returns the next action."""
        action = self._expert.act(self._env.seen)
        space, own = self._env.action_space, self._env.task.action_space
        if not self._held and self._noise and self._random.random() < self._noise:
            continuous = isinstance(space, spaces.Box)
            self._held = int(self._random.integers(1, HOLD + 1)) if continuous else 1
            self._action = space.sample()
        if self._held:
            self._held -= 1
            return self._action
        if space != own and isinstance(own, spaces.MultiDiscrete):
            return int(np.ravel_multi_index(tuple(action), tuple(own.nvec)))
        return action
