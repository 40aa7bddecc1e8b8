"""Memory Maze: remember where coloured targets stand, and go to the requested one.

A 3D maze of rooms and corridors, new in each episode, in first-person view. The border of the frame
has the colour of the requested target; at that target another one is requested. An agent that
remembers the targets' positions takes the shortest path. Introduced by Pasukonis, Lillicrap and
Hafner (2022, arXiv:2210.13383); frames, actions and rewards are those of their package.

The episode of a seed equals that of a new `memory_maze.tasks.memory_maze_9x9(seed=seed)`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from rate.envs.memory_maze_packages import check_packages
from rate.envs.memory_maze_simulator import CONTROLS, FRAME, SIZES, MazeSimulator, MazeState
from rate.envs.spec import EnvironmentSpec, with_privileged_state
from rate.errors import ConfigError

STAY, FORWARD, LEFT, RIGHT, FORWARD_LEFT, FORWARD_RIGHT = range(len(CONTROLS))
PUBLISHED_LENGTH = 1000
PRIVILEGED_SIZE = 5

Array = npt.NDArray[Any]
Observation = Array | dict[str, Array]
Cell = tuple[int, int]

# Mean return of the expert of `datamodules.memory_maze` in 1000 steps, by size of the maze. The
# target return of the RATE paper for 9x9 is 18.1, the best of its own data.
_TARGET_RETURN = {9: 31.0, 11: 28.0, 13: 25.0, 15: 21.0}


@dataclass(frozen=True)
class MemoryMazeOptions:
    """Settings of Memory Maze.

    Attributes:
        size: Width and height of the maze in cells: 9, 11, 13 or 15, with 3, 4, 5 or 6 targets.
        privileged: Observations also hold the privileged state (for an Oracle-DT), `(5,)` float32
            in [-1, 1]: position of the requested target relative to the agent (forward, left),
            divided by the maze's diagonal; unit vector to the next cell on the shortest path
            (forward, left); length of that path in cells, divided by `4 * size` and at most 1.
    """

    size: int = 9
    privileged: bool = False

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"env.size is {self.size}; it must be one of {list(SIZES)}.")


def memory_maze_spec(options: MemoryMazeOptions | None = None) -> EnvironmentSpec:
    """Returns the specification: images `(64, 64, 3)`, 6 actions.

    The target return is about the mean of our expert in 1000 steps.
    """
    options = options or MemoryMazeOptions()
    return EnvironmentSpec(
        "memory_maze",
        _observation_space(options),
        spaces.Discrete(len(CONTROLS)),
        target_return=_TARGET_RETURN[options.size],
    )


def _observation_space(options: MemoryMazeOptions) -> gymnasium.Space[Any]:
    image = spaces.Box(0, 255, (FRAME, FRAME, 3), np.uint8)
    if not options.privileged:
        return image
    return with_privileged_state("image", image, spaces.Box(-1, 1, (PRIVILEGED_SIZE,), np.float32))


class MemoryMaze(gymnasium.Env[Observation, np.int64]):
    """One Memory Maze.

    Observations are images `(64, 64, 3)` uint8; with `options.privileged` they are a dictionary of
    that `image` and `privileged` `(5,)` float32. Actions are 0 stay, 1 forward, 2 left, 3 right,
    4 forward and left, 5 forward and right, each for 0.25 s. The reward is 1 at the requested
    target, else 0. Only the time limit ends an episode. `info["targets"]` counts the targets
    reached.

    Args:
        options: See `MemoryMazeOptions`.
        length: Number of steps of an episode; 1000 is published for 9x9.
        render_mode: Gymnasium's; `render` works in any mode.

    Raises:
        ValueError: If the length is below 1.
        ConfigError: If a package is missing.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": ["rgb_array"],
        "render_fps": 4,
    }

    def __init__(
        self,
        options: MemoryMazeOptions | None = None,
        length: int = PUBLISHED_LENGTH,
        render_mode: str | None = None,
    ) -> None:
        self.options = options or MemoryMazeOptions()
        self.render_mode = render_mode
        if length < 1:
            raise ValueError(f"Memory Maze length {length!r}: an episode has at least 1 step")
        check_packages()
        self.observation_space = _observation_space(self.options)
        self.action_space = spaces.Discrete(len(CONTROLS))
        self._length = length
        # Created at the first reset: it takes seconds, and the spaces do not need it.
        self._simulator: MazeSimulator | None = None
        self._frame: Array = np.zeros((FRAME, FRAME, 3), dtype=np.uint8)
        self._time, self._reached = 0, 0

    @property
    def max_steps(self) -> int:
        """The number of steps of an episode."""
        return self._length

    @property
    def state(self) -> MazeState:
        """The simulator's state, for experts and the privileged state.

        Raises:
            ResetNeeded: If no episode has begun.
        """
        if self._simulator is None:
            raise ResetNeeded("Memory Maze: call reset() first")
        return self._simulator.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        seed = seed if seed is not None else int(self.np_random.integers(1 << 63))
        if self._simulator is None:
            self._simulator = MazeSimulator(self.options.size)
        self._frame = self._simulator.reset(seed)
        self._time, self._reached = 0, 0
        return self._observe(), {"targets": 0}

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0."""
        if self._simulator is None:
            raise ResetNeeded("Memory Maze: call reset() before step()")
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"Memory Maze action {action!r}: expected an integer from 0 to 5")
        reward = 0.0
        if self._time < self._length:
            self._frame, reward = self._simulator.step(int(action))
            self._time += 1
            self._reached += int(reward)
        truncated = self._time >= self._length
        return self._observe(), reward, False, truncated, {"targets": self._reached}

    def render(self) -> npt.NDArray[np.uint8]:
        """Returns the frame, `(64, 64, 3)` uint8."""
        return self._frame.copy()

    def close(self) -> None:
        """Frees the simulator; the next `reset` creates another."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _observe(self) -> Observation:
        image = self._frame.copy()
        if not self.options.privileged:
            return image
        return {"image": image, "privileged": privileged_state(self.state)}


def privileged_state(state: MazeState) -> npt.NDArray[np.float32]:
    """Returns the privileged state `(5,)`; see `MemoryMazeOptions`."""
    size = len(state.layout)
    position, target = state.position, state.target
    path = shortest_path(state.layout, _cell(position), _cell(target))
    waypoint = np.array(path[1]) + 0.5 if len(path) > 1 else target
    x, y = state.direction
    to_agent = np.array([[x, y], [-y, x]])  # forward, left
    way = to_agent @ (waypoint - position)
    hidden: npt.NDArray[np.float32] = np.concatenate(
        [
            to_agent @ (target - position) / (np.sqrt(2) * size),
            way / max(float(np.linalg.norm(way)), 1e-9),
            [min(1.0, (len(path) - 1) / (4 * size))],
        ]
    ).clip(-1, 1, dtype=np.float32)
    return hidden


def _cell(position: npt.NDArray[np.float64]) -> Cell:
    return int(position[0]), int(position[1])


def shortest_path(layout: npt.NDArray[np.bool_], start: Cell, goal: Cell) -> list[Cell]:
    """Returns a shortest path between two cells, by breadth-first search without diagonal moves.

    Args:
        layout: `(size, size)` bool at `[y, x]`: True where a cell is free.
        start: x and y.
        goal: x and y.

    Returns:
        The cells from `start` to `goal`, both included; only the goal if there is no path.
    """
    height, width = layout.shape
    came: dict[Cell, Cell] = {goal: goal}
    queue = deque([goal])
    while queue and start not in came:
        x, y = cell = queue.popleft()
        for near in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
            inside = 0 <= near[0] < width and 0 <= near[1] < height
            if inside and near not in came and layout[near[1], near[0]]:
                came[near] = cell
                queue.append(near)
    if start not in came:
        return [goal]
    path = [start]
    while path[-1] != goal:
        path.append(came[path[-1]])
    return path
