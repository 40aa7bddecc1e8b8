"""An expert for Memory Maze that knows the target's position and plans its way there.

An action is chosen by trying plans in a simple model of the ball: one action for some steps, then
another one. The plan wins that comes nearest to the target, along the way that is left.
"""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt

from rate.envs.memory_maze import FORWARD, FORWARD_LEFT, FORWARD_RIGHT, LEFT, RIGHT, MemoryMaze
from rate.envs.memory_maze_simulator import CONTROLS

Array = npt.NDArray[np.float64]

# The ball at full speed, per action: cells, radians.
_SPEED, _TURN = 0.248, 0.32
# What is left of the difference to full speed after an action, and its mean during the action.
_LAG, _MEAN_LAG = 0.22, 0.52
_TURN_LAG, _TURN_MEAN_LAG = 0.015, 0.23

_FINE = 5  # points per cell and axis of the map of distances
_TOUCH = 0.37  # cells: a target is reached at 0.38
_RADIUS = 0.13  # cells: the ball's 0.1 and a little, because it sticks to a wall that it touches
_HORIZON = 9
_RUN = 6  # the longest random run

# Plans: an action, how often, and the action for the rest of the horizon.
_MOVES = (FORWARD, LEFT, RIGHT, FORWARD_LEFT, FORWARD_RIGHT)
_PLANS = np.array(
    [
        [first] * count + [then] * (_HORIZON - count)
        for first in _MOVES
        for count in range(1, _HORIZON - 1)
        for then in _MOVES
        if then != first or count == 1
    ]
)


class MemoryMazeExpert:
    """Drives to the requested target on the shortest path.

    Args:
        noise: Probability that a step begins a run of 1 to 6 steps of one random action.
    """

    def __init__(self, noise: float = 0.0) -> None:
        self._noise = noise

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Starts an episode in `env`, a `MemoryMaze`."""
        self._env = cast("MemoryMaze", env.unwrapped)
        self._random = np.random.default_rng(seed)
        self._maps: dict[tuple[float, ...], Array] = {}
        self._run, self._run_action = 0, FORWARD
        self._speed, self._turn = 0.0, 0.0
        self._before: Array | None = None
        self._clearance = _clearance(self._env.state.layout)

    def act(self) -> int:
        """Returns the first action of the best plan, or an action of a random run."""
        state = self._env.state
        self._notice_walls(state.position)
        if self._noise and not self._run and self._random.random() < self._noise:
            self._run = int(self._random.integers(1, _RUN + 1))
            self._run_action = int(self._random.integers(len(CONTROLS)))
        if self._run:
            self._run -= 1
            action = self._run_action
        else:
            action = self._plan(state.position, state.direction, state.target)
        wheel, steering = _controls(np.array(action))
        self._speed = float(wheel + (self._speed - wheel) * _LAG)
        self._turn = float(steering + (self._turn - steering) * _TURN_LAG)
        return action

    def _notice_walls(self, position: Array) -> None:
        """Sets the speed to 0 if the ball moved much less than the model predicted."""
        if self._before is not None:
            moved = float(np.linalg.norm(position - self._before)) / _SPEED
            if moved < 0.5 * self._speed - 0.1:
                self._speed = 0.0
        self._before = position

    def _plan(self, position: Array, direction: Array, target: Array) -> int:
        key = tuple(target.round(2).tolist())
        if key not in self._maps:
            self._maps[key] = self._to(target)
        speed, turn = self._speed, self._turn
        cost = self._try_plans(position, direction, speed, turn, target, self._maps[key])
        return int(_PLANS[int(np.argmin(cost)), 0])

    def _to(self, target: Array) -> Array:
        """Returns the map of distances to a target."""
        return _distances(self._clearance, target)

    def _try_plans(
        self,
        position: Array,
        direction: Array,
        speed: float | Array,
        turn: float | Array,
        target: Array,
        distances: Array,
    ) -> Array:
        """Returns the number of steps to the target under each plan, `(P,)`."""
        place = np.tile(position, (len(_PLANS), 1))
        angle: Array = np.full(len(_PLANS), np.arctan2(direction[1], direction[0]))
        room = _interpolate(self._clearance, place)
        cost = np.zeros(len(_PLANS))
        done = np.zeros(len(_PLANS), dtype=bool)
        for step in range(_HORIZON):
            wheel, steering = _controls(_PLANS[:, step])
            turned = _TURN * (steering + (turn - steering) * _TURN_MEAN_LAG)
            moved = _SPEED * (wheel + (speed - wheel) * _MEAN_LAG)
            turn = steering + (turn - steering) * _TURN_LAG
            speed = wheel + (speed - wheel) * _LAG
            course = angle + turned / 2
            angle = angle + turned
            ahead = place + moved[:, None] * np.stack([np.cos(course), np.sin(course)], axis=1)
            there = _interpolate(self._clearance, ahead)
            free = (there > _RADIUS) | (there > room)
            room = np.where(free, there, room)
            speed = np.where(free, speed, 0.0)
            place = np.where((free & ~done)[:, None], ahead, place)
            done |= ((place - target) ** 2).sum(axis=1) < _TOUCH**2
            cost += ~done * (1.0 + 0.5 * ~free)
        left: Array = np.where(done, 0.0, _interpolate(distances, place) / _SPEED)
        return cost + left


def _controls(actions: npt.NDArray[Any]) -> tuple[Array, Array]:
    """Returns wheel and steering (positive to the left) of actions, each from -1 to 1."""
    controls = -CONTROLS[actions]
    return controls[..., 0], controls[..., 1]


def _clearance(layout: npt.NDArray[np.bool_]) -> Array:
    """Returns the distance to the nearest wall at `(F size, F size)` points `[y, x]`, in cells."""
    walls = np.argwhere(~np.pad(layout, 1)) - 0.5  # centres, y and x
    points = (np.arange(len(layout) * _FINE) + 0.5) / _FINE
    away = np.maximum(np.abs(points[:, None] - walls.T[:, None]) - 0.5, 0)  # (2, points, walls)
    squares = away[0][:, None] ** 2 + away[1][None] ** 2
    nearest: Array = np.sqrt(squares.min(axis=2))
    return nearest


def _distances(clearance: Array, target: Array, cost: float | Array = 1.0) -> Array:
    """Returns the length of the shortest path from each point to the target, in cells.

    Ways where the ball does not fit count much longer.

    Args:
        clearance: See `_clearance`.
        target: x and y.
        cost: Of a way of one cell, `(F size, F size)` or the same everywhere.
    """
    size = len(clearance)
    centres = (np.arange(size) + 0.5) / _FINE
    slow = np.where(clearance < _RADIUS, 20.0, cost)
    ways = np.hypot(centres[None, :] - target[0], centres[:, None] - target[1])
    found = np.where((ways < 0.3) & (clearance > 0), ways, np.inf)
    while True:
        padded = np.pad(found, 1, constant_values=np.inf)
        best = found
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                shifted = padded[1 + dy : 1 + dy + size, 1 + dx : 1 + dx + size]
                best = np.minimum(best, shifted + np.hypot(dx, dy) / _FINE * slow)
        if np.array_equal(best, found):
            return best
        found = best


def _interpolate(grid: Array, places: Array) -> Array:
    """Interpolates values at `(P, 2)` places between the four nearest points, `(P,)`."""
    size = len(grid)
    at = np.clip(places * _FINE - 0.5, 0, size - 1.001)
    low = at.astype(np.int64)
    fx, fy = (at - low).T
    x, y = low.T
    near = grid[y, x] * (1 - fx) + grid[y, x + 1] * fx
    far = grid[y + 1, x] * (1 - fx) + grid[y + 1, x + 1] * fx
    values: Array = near * (1 - fy) + far * fy
    return values
