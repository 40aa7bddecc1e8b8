"""An expert for Minigrid-Memory that plans on the true maze."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Any

import gymnasium
import numpy as np

from datamodules.collector import NoisyExpert
from rate.envs.minigrid_memory import FORWARD, LEFT, RIGHT, VIEW, MinigridMemory

# Column, row and direction (0 right, 1 down, 2 left, 3 up).
Pose = tuple[int, int, int]
# A pose, and which of the sights were in view before it was taken.
State = tuple[Pose, int]

# What must be seen to know the way, as bits: the object, and the upper end of the fork.
CUE, FORK = 1, 2
EVERYTHING = CUE | FORK

_COLUMN, _ROW = (1, 0, -1, 0), (0, 1, 0, -1)
_TURN = {LEFT: -1, RIGHT: 1}


class MinigridMemoryExpert(NoisyExpert[MinigridMemory]):
    """Looks at the object, then at the fork's upper end, then goes to the matching object.

    A view of three cells does not show the ends of the fork before the agent turns to one of them.
    The behaviour of an expert that turned to the right one at once could not be learnt. This one
    always looks up first, so that its actions follow from observations and memory.

    Args:
        noise: Probability of a random turn or step instead. One that would end the episode
            without success, or leave too little time, is not taken.

    Raises:
        ValueError: If `noise` is no probability.
    """

    plays = MinigridMemory

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        super().reset(env, seed)
        self._plan: Plan | None = None
        self._seen = 0

    def act(self) -> int:
        """Returns the next action."""
        if self._plan is None:
            self._plan = Plan(self._env)
        simulator = self._env.simulator
        pose = _pose(simulator)
        self._seen |= self._plan.shows.get(pose, 0)
        # Steps to success after each action; infinite where there is no success any more.
        steps = [
            self._plan.steps.get((self._plan.after(pose, action), self._seen), inf)
            for action in (LEFT, RIGHT, FORWARD)
        ]
        if self._random.random() < self._noise:
            remaining = simulator.max_steps - simulator.step_count - 1
            safe = [action for action, needed in enumerate(steps) if needed <= remaining]
            if safe:
                return int(self._random.choice(safe))
        return int(np.argmin(steps))


class Plan:
    """The distance from every pose of a maze to success.

    Attributes:
        shows: Which of the sights are in view from a pose, where any is.
        steps: The number of actions to success, by state; no entry where it cannot be reached.
    """

    def __init__(self, maze: MinigridMemory) -> None:
        self._goal = _cell(maze.simulator.success_pos)
        self._failure = _cell(maze.simulator.failure_pos)
        self._cells = self._reachable(maze.simulator)
        upper = min(self._goal, self._failure, key=lambda cell: cell[1])
        self.shows: dict[Pose, int] = {}
        self._note_views(maze, maze.cue_position)
        self.shows[upper[0], upper[1] + 1, 3] = FORK  # in the middle of the fork, facing up
        self.steps = self._distances()

    def after(self, pose: Pose, action: int) -> Pose:
        """The pose that an action leads to; whatever is in the way stops a step."""
        column, row, direction = pose
        if action != FORWARD:
            return column, row, (direction + _TURN[action]) % 4
        ahead = column + _COLUMN[direction], row + _ROW[direction]
        return (*ahead, direction) if self._is_free(ahead) else pose

    def _is_free(self, cell: tuple[int, int]) -> bool:
        return cell in self._cells or cell in (self._goal, self._failure)

    def _reachable(self, simulator: Any) -> set[tuple[int, int]]:
        """The cells where the agent can be while the episode goes on."""
        column, row, _ = _pose(simulator)
        cells, frontier = {(column, row)}, [(column, row)]
        while frontier:
            column, row = frontier.pop()
            for across, down in zip(_COLUMN, _ROW, strict=True):
                cell = column + across, row + down
                ends = cell in (self._goal, self._failure)
                if cell not in cells and not ends and simulator.grid.get(*cell) is None:
                    cells.add(cell)
                    frontier.append(cell)
        return cells

    def _note_views(self, maze: MinigridMemory, cue: tuple[int, int]) -> None:
        """Note where MiniGrid itself puts the object into the agent's view."""
        simulator = maze.simulator
        before = simulator.agent_pos, simulator.agent_dir
        for column, row in self._cells:
            if max(abs(column - cue[0]), abs(row - cue[1])) >= VIEW:
                continue
            for direction in range(4):
                simulator.agent_pos, simulator.agent_dir = (column, row), direction
                if simulator.agent_sees(*cue):
                    self.shows[column, row, direction] = CUE
        simulator.agent_pos, simulator.agent_dir = before

    def _distances(self) -> dict[State, int]:
        """Breadth first, backwards from success."""
        column, row = self._goal
        frontier: deque[State] = deque(((column, row, way), EVERYTHING) for way in range(4))
        steps = dict.fromkeys(frontier, 0)
        while frontier:
            state = frontier.popleft()
            for before in self._before(state):
                if before not in steps:
                    steps[before] = steps[state] + 1
                    frontier.append(before)
        return steps

    def _before(self, state: State) -> Iterator[State]:
        """The states from which one action leads to a state."""
        (column, row, direction), seen = state
        back = column - _COLUMN[direction], row - _ROW[direction], direction
        for pose in (back, *((column, row, (direction + turn) % 4) for turn in (-1, 1))):
            shown = self.shows.get(pose, 0)
            if pose[:2] in self._cells:
                yield from ((pose, before) for before in range(4) if before | shown == seen)


def _cell(position: Any) -> tuple[int, int]:
    return int(position[0]), int(position[1])


def _pose(simulator: Any) -> Pose:
    return (*_cell(simulator.agent_pos), int(simulator.agent_dir))
