"""The T-Mazes of Ni et al. (2023), "When Do Transformers Shine in RL?" (arXiv:2307.03864)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, EpisodeSampler, Outcome, State, Task, TaskOptions

RIGHT, UP, LEFT, DOWN = range(4)

_MOVE = np.array([1, 0, -1, 0])
_TURN = np.array([0, 1, 0, -1])


@dataclass(frozen=True)
class PassiveTMazeOptions(TaskOptions):
    """Settings of `PassiveTMaze`: none beside its length."""


@dataclass(frozen=True)
class ActiveTMazeOptions(TaskOptions):
    """Settings of `ActiveTMaze`: none beside its length."""


class PassiveTMaze(Task[TaskOptions]):
    """A corridor of `length` cells; the goal is shown at its first cell, and asked for at its end.

    Cells are `(x, 0)` for `x` from 0 to `length`, the junction, and the two goals `(length, +1)`
    and `(length, -1)`. Observations are `(2,)` float32: `[0, goal]` at the first visit of `x = 0`,
    `[1, y]` at the junction and in the goals, else `[0, 0]`. Actions are 0 right, 1 up, 2 left,
    3 down; a move into a wall has no effect. An episode has `length + 1` steps, and no fewer. The
    reward of the last is 1 in the correct goal, else 0; that of any other is `-1 / length` if the
    agent is behind the shortest way.

    Reset options: `goal`, +1 or -1.
    """

    options_class: ClassVar[type[Any]] = PassiveTMazeOptions
    default_length: ClassVar[int] = 50
    varies_length = True
    length_name = "corridor length"
    success_without_memory = 1 / 2
    num_actions = 4
    detour: ClassVar[int] = 0  # cells from the start back to the cell that shows the goal

    @property
    def own_space(self) -> spaces.Box:
        return spaces.Box(np.array([0, -1], np.float32), np.ones(2, np.float32), dtype=np.float32)

    @property
    def privileged_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (3,), np.float32)  # goal, share of the corridor, goal seen

    def steps(self, length: Any) -> Any:
        return length + 2 * self.detour + 1

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        start = np.full(len(length), self.detour)
        return {
            "goal": sampler.choice("goal", [-1, 1]),
            "x": start,
            "y": np.zeros(len(length), dtype=np.int64),
            "seen_at": np.where(start == 0, 0, -1),  # time of the first visit of x = 0
        }

    def observe(self, state: State) -> Array:
        at_end = state["x"] == self._junction(state)
        is_shown = (state["x"] == 0) & (state["time"] == state["seen_at"])
        seen = np.zeros((len(at_end), 2), dtype=np.float32)
        seen[:, 0] = at_end
        seen[:, 1] = np.where(at_end, state["y"], state["goal"] * is_shown)
        return seen

    def reveal(self, state: State) -> Array:
        share = state["x"] / self._junction(state)
        return np.stack([state["goal"], share, state["seen_at"] >= 0], axis=1, dtype=np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        time, junction, at_end = state["time"] + 1, self._junction(state), self._at_end(state)
        y = np.clip(state["y"] + _TURN[actions] * at_end, -1, 1)
        x = np.clip(state["x"] + _MOVE[actions] * (state["y"] == 0), 0, junction)
        seen_at = np.where((state["seen_at"] < 0) & (x == 0), time, state["seen_at"])
        state |= {"x": x, "y": y, "seen_at": seen_at}
        last = time == self.steps(state["length"])
        success = last & (y == state["goal"])
        late = np.where(x < time - self.detour, -1 / state["length"], 0.0)
        return Outcome(np.where(last, success, late), last, success)

    def oracle(self, state: State) -> Array:
        """Returns the way to the cell that shows the goal, to the junction and into the goal."""
        turn = np.where(state["goal"] > 0, UP, DOWN)
        ahead = np.where(self._at_end(state), turn, RIGHT)
        return np.where(state["seen_at"] < 0, LEFT, ahead)

    def _junction(self, state: State) -> Array:
        junction: Array = state["length"] + self.detour
        return junction

    def _at_end(self, state: State) -> Array:
        at_end: Array = state["x"] == self._junction(state)
        return at_end


class ActiveTMaze(PassiveTMaze):
    """`PassiveTMaze` in which the goal is shown one cell to the left of the start.

    The start is `x = 1`, the junction `x = length + 1`, and an episode has `length + 3` steps. The
    way to `x = 0` and back is free of the penalty; without it the success rate is .5.
    """

    options_class = ActiveTMazeOptions
    default_length = 20
    detour = 1
