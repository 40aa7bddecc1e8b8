"""Minigrid-Memory: see an object, walk down a hallway, and go to the matching object.

The environment is MiniGrid's `MemoryEnv` (Chevalier-Boisvert et al. 2023), with the view and sizes
of the RATE paper (arXiv:2306.09459): an egocentric view of 3x3 cells, and mazes of 7x7 to 501x501
and larger. The agent starts anywhere in the room or the hallway, so it may have to walk back to see
the object.

The episode of a seed is that of `MemoryEnv(size).reset(seed)`. Pixels and symbols are MiniGrid's;
MiniGrid caches rendered tiles, so only the first steps of a process are slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from rate.advice import install
from rate.envs.spec import EnvironmentSpec, with_privileged_state
from rate.errors import ConfigError
from rate.hashing import hash_counter

LEFT, RIGHT, FORWARD = range(3)
MINIMUM_SIZE = 7
VIEW, TILE = 3, 28  # cells and pixels per cell: an image of 84x84

# MiniGrid's symbols of a cell: 11 kinds of object, 6 colours, 3 states (of doors).
_SYMBOLS = np.tile([11, 6, 3], (VIEW, VIEW, 1))
_MAP_RADIUS = 4  # cells around the agent in the map of `render`
_SIZE_COUNTER = (1 << 62) + 2

Array = npt.NDArray[Any]
Observation = Array | dict[str, Array]
GridSize = int | tuple[int, int]


@dataclass(frozen=True)
class MinigridMemoryOptions:
    """Settings of Minigrid-Memory.

    Attributes:
        observation: `pixels`, (3, 84, 84) uint8; or `symbols`, (3, 3, 3) integers: object, colour
            and state of each cell in view.
        random_length: Sample the length of the hallway; otherwise it is that of the maze.
        time_out: Number of steps after which an episode is truncated. None is `4 * size`, twice the
            longest path (`2 * size - 2`). The RATE paper has 96 for data of size 41 and 500 for
            evaluation, which is too short for some episodes above size 252.
        privileged: Observations also hold the privileged state `(1,)` (for an Oracle-DT): 1 if the
            object is a key, 0 if it is a ball.
    """

    observation: str = "pixels"
    random_length: bool = True
    time_out: int | None = None
    privileged: bool = False

    def __post_init__(self) -> None:
        if self.observation not in ("pixels", "symbols"):
            raise ConfigError(
                f"env.observation is {self.observation!r}; it must be 'pixels' or 'symbols'."
            )
        if self.time_out is not None and self.time_out < 1:
            raise ConfigError(f"env.time_out is {self.time_out}; it must be at least 1, or null.")

    def steps(self, size: int) -> int:
        """Returns the time-out of an episode in a maze of `size`, in steps."""
        return 4 * size if self.time_out is None else self.time_out


def minigrid_memory_spec(options: MinigridMemoryOptions | None = None) -> EnvironmentSpec:
    """Returns the specification: an image or a grid of symbols, 3 actions.

    The target return is the published 0.96 if the time-out is fixed. If the time-out follows the
    size, returns of optimal episodes lie between 0.55 and 0.98, and 0.85 is in the upper half.
    """
    options = options or MinigridMemoryOptions()
    return EnvironmentSpec(
        "minigrid_memory",
        _observation_space(options),
        spaces.Discrete(3),
        target_return=0.85 if options.time_out is None else 0.96,
    )


def _observation_space(options: MinigridMemoryOptions) -> gymnasium.Space[Any]:
    # Symbols are categories, not quantities: a MultiDiscrete gets one embedding per component.
    main: gymnasium.Space[Any] = (
        spaces.Box(0, 255, (3, VIEW * TILE, VIEW * TILE), np.uint8)
        if options.observation == "pixels"
        else spaces.MultiDiscrete(_SYMBOLS)
    )
    if not options.privileged:
        return main
    privileged = spaces.Box(0, 1, (1,), np.float32)
    return with_privileged_state(_main_key(options), main, privileged)


def _main_key(options: MinigridMemoryOptions) -> str:
    return "image" if options.observation == "pixels" else "symbols"


def _size_range(grid_size: GridSize) -> tuple[int, int]:
    """Returns the smallest and largest maze of `grid_size`, both included."""
    low, high = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
    if not MINIMUM_SIZE <= low <= high or low % 2 == 0 or high % 2 == 0:
        raise ValueError(
            f"Minigrid-Memory grid size {grid_size!r}: it is an odd number from "
            f"{MINIMUM_SIZE} on, or a range (smallest, largest) of two"
        )
    return int(low), int(high)


def _simulator(size: int, random_length: bool) -> Any:
    """Returns MiniGrid's environment; it is `Any` because MiniGrid is typed in part only."""
    try:
        from minigrid.envs.memory import MemoryEnv
    except ImportError as error:
        raise ConfigError(
            f"Minigrid-Memory needs the package minigrid. Install it with: {install('minigrid')}"
        ) from error
    return MemoryEnv(size=size, random_length=random_length, max_steps=1, agent_view_size=VIEW)


class MinigridMemory(gymnasium.Env[Observation, np.int64]):
    """One maze of Minigrid-Memory.

    Observations are pixels `(3, 84, 84)` uint8 or symbols `(3, 3, 3)` int64. With
    `options.privileged` they are a dictionary of `image` or `symbols`, and `privileged` `(1,)`
    float32. Actions are 0 turn left, 1 turn right, 2 forward. At the matching object the reward is
    1 - 0.9 * t / T, at step t with a time-out of T; else it is 0. Either object terminates the
    episode. `info` holds `success`, `cue` (1 key, 0 ball) and `size`.

    Args:
        options: See `MinigridMemoryOptions`.
        grid_size: The width and height of the grid, odd, at least 7; or a range (both ends
            included) from which each reset samples an odd size.
        render_mode: Gymnasium's; `render` works in any mode.

    Raises:
        ValueError: If a size is even or below 7, or the range is empty.
        ConfigError: If the package minigrid is missing.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }

    def __init__(
        self,
        options: MinigridMemoryOptions | None = None,
        grid_size: GridSize = 41,
        render_mode: str | None = None,
    ) -> None:
        self.options = options or MinigridMemoryOptions()
        self.render_mode = render_mode
        self.observation_space = _observation_space(self.options)
        self.action_space = spaces.Discrete(3)
        self._range = _size_range(grid_size)
        self.simulator = _simulator(self._range[1], self.options.random_length)
        self._symbols: Array = np.zeros((VIEW, VIEW, 3), dtype=np.uint8)
        self._finished: tuple[bool, bool] | None = None  # terminated, truncated

    @property
    def max_steps(self) -> int:
        """The time-out in the largest maze."""
        return self.options.steps(self._range[1])

    @property
    def cue_position(self) -> tuple[int, int]:
        """Column and row of the object to remember."""
        return 1, int(self.simulator.height) // 2 - 1

    @property
    def cue(self) -> int:
        """The object to remember: 1 a key, 0 a ball."""
        return int(self.simulator.grid.get(*self.cue_position).type == "key")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        seed = seed if seed is not None else int(self.np_random.integers(1 << 63))
        low, high = self._range
        size = low + 2 * (hash_counter(seed, _SIZE_COUNTER) % ((high - low) // 2 + 1))
        simulator = self.simulator
        simulator.size = simulator.width = simulator.height = size
        simulator.max_steps = self.options.steps(size)
        seen, _ = simulator.reset(seed=seed)
        self._symbols, self._finished = seen["image"], (False, False)
        return self._observe(), self._info(success=False)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0."""
        if self._finished is None:
            raise ResetNeeded("Minigrid-Memory: call reset() before step()")
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"Minigrid-Memory action {action!r}: expected 0, 1 or 2")
        reward = 0.0
        if not any(self._finished):
            seen, reward, terminated, truncated, _ = self.simulator.step(int(action))
            self._symbols = seen["image"]
            self._finished = bool(terminated), bool(truncated and not terminated)
        at = tuple(map(int, self.simulator.agent_pos))
        success = self._finished[0] and at == self.simulator.success_pos
        return self._observe(), float(reward), *self._finished, self._info(success)

    def render(self) -> npt.NDArray[np.uint8]:
        """Returns an image `(252, 504, 3)`: the agent's view, and right of it the map."""
        view = self.simulator.get_frame(tile_size=TILE, agent_pov=True)
        radius = _MAP_RADIUS
        x, y = map(int, self.simulator.agent_pos)
        cells = 2 * radius + 1
        around = self.simulator.grid.slice(x - radius, y - radius, cells, cells).render(
            TILE,
            agent_pos=(radius, radius),
            agent_dir=self.simulator.agent_dir,
            highlight_mask=self._seen_around(radius),
        )
        scale = cells // VIEW
        picture: npt.NDArray[np.uint8] = np.hstack(
            [view.repeat(scale, axis=0).repeat(scale, axis=1), around]
        )
        return picture

    def _seen_around(self, radius: int) -> npt.NDArray[np.bool_]:
        """Returns which cells of the map around the agent are in its view, `(cells, cells)`."""
        mask = np.zeros((2 * radius + 1, 2 * radius + 1), dtype=bool)
        forward, right = self.simulator.dir_vec, self.simulator.right_vec
        for column, row in np.argwhere(self._symbols[:, :, 0] > 0):
            at = radius + forward * (VIEW - 1 - row) + right * (column - VIEW // 2)
            mask[tuple(at)] = True
        return mask

    def _observe(self) -> Observation:
        if self.options.observation == "pixels":
            frame = self.simulator.get_frame(tile_size=TILE, agent_pov=True)
            main = np.ascontiguousarray(frame.transpose(2, 0, 1))
        else:
            main = self._symbols.astype(np.int64)
        if not self.options.privileged:
            return main
        return {_main_key(self.options): main, "privileged": np.array([self.cue], dtype=np.float32)}

    def _info(self, success: bool) -> dict[str, Any]:
        return {"success": success, "cue": self.cue, "size": int(self.simulator.size)}
