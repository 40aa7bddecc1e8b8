"""The passive T-Maze: one bit must be remembered from the first step to the last.

The agent walks along a corridor and turns up or down at the junction. The first observation alone
holds the clue. An episode of length `T` has `T` observations and `T - 1` actions: `T - 2` moves to
the right and one turn. No move may be wasted: only "right, ..., right, the correct turn" succeeds.

The task is that of Bakker (2001, "Reinforcement Learning with Long Short-Term Memory"); observation
and reward are those of the RATE paper (arXiv:2306.09459).

Goal, length and noise are hashes of the episode's seed and a counter. The state does not grow with
the episode's length, and `TMaze` and `TMazeVector` agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rate.envs.autoreset import WAITING
from rate.envs.row_seeds import row_seeds
from rate.envs.spec import EnvironmentSpec
from rate.hashing import hash_counter

RIGHT, UP, LEFT, DOWN = range(4)
MINIMUM_LENGTH = 3
DEFAULT_LENGTH = 90

_MOVE = np.array([1, 0, -1, 0])
_TURN = np.array([0, 1, 0, -1])

# The noise takes the counters 0, 1, ..., one for each step; these two are beyond any step.
_GOAL_COUNTER, _LENGTH_COUNTER = 1 << 62, (1 << 62) + 1

Length = int | tuple[int, int]


def _observation_space() -> gymnasium.Space[npt.NDArray[np.float32]]:
    low = np.array([-1, -1, 0, -1], dtype=np.float32)
    space = spaces.Box(low, np.ones(4, dtype=np.float32), dtype=np.float32)
    return cast("gymnasium.Space[npt.NDArray[np.float32]]", space)


def tmaze_spec() -> EnvironmentSpec:
    """Returns the specification: observations `(4,)`, 4 actions, target return 1."""
    return EnvironmentSpec("tmaze", _observation_space(), spaces.Discrete(4), target_return=1.0)


TMAZE_SPEC = tmaze_spec()


@dataclass(frozen=True)
class TMazeOptions:
    """Settings of the T-Maze: none beside its length."""


def check_length(length: int) -> int:
    """Returns the number of observations of an episode of a length.

    Raises:
        ValueError: If the length is below 3.
    """
    return _length_range(length)[1]


def _length_range(length: Length) -> tuple[int, int]:
    """Returns the shortest and longest episode of `length`, both included."""
    low, high = (length, length) if isinstance(length, int) else length
    if not MINIMUM_LENGTH <= low <= high:
        raise ValueError(
            f"T-Maze length {length!r}: an episode has at least {MINIMUM_LENGTH} observations "
            "(start, junction, after the turn), and a range is (shortest, longest)"
        )
    return int(low), int(high)


def sample_episodes(
    seeds: npt.NDArray[np.uint64], length: Length
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns what the seeds of episodes decide.

    Args:
        seeds: `(N,)`.
        length: See `TMaze`.

    Returns:
        Lengths `(N,)`, and goals `(N,)`: +1 up, -1 down.
    """
    low, high = _length_range(length)
    goal_counter, length_counter = np.array([[_GOAL_COUNTER], [_LENGTH_COUNTER]], np.uint64)
    spread = np.uint64(high - low + 1)
    lengths = low + (hash_counter(seeds, length_counter) % spread).astype(np.int64)
    goals = 2 * (hash_counter(seeds, goal_counter) & np.uint64(1)).astype(np.int64) - 1
    return lengths, goals


class TMaze(gymnasium.Env[npt.NDArray[np.float32], np.int64]):
    """One passive T-Maze.

    Observations are `(4,)` float32: `y` (0 in the corridor, +1 or -1 after the turn), `clue` (+1
    up, -1 down at the first step, then 0), `flag` (1 at the junction, else 0) and `noise` (uniform
    over -1, 0, 1). Actions are 0 right, 1 up, 2 left, 3 down; a move into a wall has no effect. The
    reward is 1 for the correct turn, else 0. A turn terminates the episode; `T - 1` actions without
    a turn truncate it. `info["success"]` is whether the correct turn was taken.

    Args:
        length: The number `T` of observations of an episode, or a range (both ends included) from
            which each reset samples one.

    Raises:
        ValueError: If a length is below 3 or the range is empty.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, length: Length = DEFAULT_LENGTH) -> None:
        self.observation_space = _observation_space()
        self.action_space = spaces.Discrete(4)
        self._range = _length_range(length)
        self._seed, self._time, self._position, self._y = 0, 0, 0, 0
        self._goal, self._length, self._finished = 1, self._range[0], True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        low, high = self._range
        self._seed = seed if seed is not None else int(self.np_random.integers(1 << 63))
        self._goal = 2 * (hash_counter(self._seed, _GOAL_COUNTER) & 1) - 1
        self._length = low + hash_counter(self._seed, _LENGTH_COUNTER) % (high - low + 1)
        self._time, self._position, self._y, self._finished = 0, 0, 0, False
        return self._observe(), {"success": False}

    def step(
        self, action: np.int64 | int
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0."""
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"T-Maze action {action!r}: expected 0, 1, 2 or 3")
        was_finished = self._finished
        if not was_finished:
            self._time += 1
            if self._position == self._length - 2:
                self._y = int(_TURN[action])
            if self._y == 0:
                position = self._position + int(_MOVE[action])
                self._position = min(max(position, 0), self._length - 2)
        terminated = self._y != 0
        truncated = not terminated and self._time >= self._length - 1
        self._finished = terminated or truncated
        success = self._y == self._goal
        reward = float(success and not was_finished)
        return self._observe(), reward, terminated, truncated, {"success": success}

    def _observe(self) -> npt.NDArray[np.float32]:
        clue = self._goal if self._time == 0 else 0
        flag = self._position == self._length - 2 and self._y == 0
        noise = hash_counter(self._seed, self._time) % 3 - 1
        return np.array([self._y, clue, flag, noise], dtype=np.float32)


class TMazeVector(VectorEnv[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[Any]]):
    """A vector environment of `N` T-Mazes in NumPy; each equals a `TMaze` of its seed to the bit.

    There is no autoreset. A finished row keeps its last observation and flags, with reward 0, until
    `reset`; `reset(options={"reset_mask": mask})` with `mask (N,)` bool resets some rows only.

    Args:
        num_envs: The number `N` of rows.
        length: As in `TMaze`; each row samples its own length from a range.

    Raises:
        ValueError: If a length is below 3 or the range is empty.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": [],
        **WAITING,
    }

    def __init__(self, num_envs: int, length: Length = DEFAULT_LENGTH) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; at least one environment is needed")
        self.num_envs = num_envs
        self.single_observation_space = _observation_space()
        self.single_action_space = spaces.Discrete(4)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._range = _length_range(length)
        self._seeds = np.zeros(num_envs, dtype=np.uint64)
        self._time, self._position, self._y, self._goal, self._junction = (
            np.zeros(num_envs, dtype=np.int64) for _ in range(5)
        )
        self._terminated, self._truncated, self._rows = (
            np.ones(num_envs, dtype=bool) for _ in range(3)
        )

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Starts episodes; an integer `seed` gives row `i` the seed `seed + i`."""
        rows = np.asarray((options or {}).get("reset_mask", self._rows), dtype=bool)
        if rows.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {rows.shape}; expected ({self.num_envs},)")
        seeds = row_seeds(self, seed)[rows]
        lengths, goals = sample_episodes(seeds, self._range)
        self._seeds[rows] = seeds
        self._junction[rows] = lengths - 2
        self._goal[rows] = goals
        for state in (self._time, self._position, self._y, self._terminated, self._truncated):
            state[rows] = 0
        return self._observe(), self._info()

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Any]:
        """Takes one action in each unfinished row; `actions` is `(N,)`."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() > DOWN:
            raise ValueError(
                f"T-Maze actions: expected ({self.num_envs},) integers from 0 to 3, got shape "
                f"{actions.shape} with values from {actions.min()} to {actions.max()}"
            )
        active = ~(self._terminated | self._truncated)
        self._time += active
        self._y += _TURN[actions] * (active & (self._position == self._junction))
        self._terminated = self._y != 0
        self._position += _MOVE[actions] * (active & ~self._terminated)
        self._position = np.minimum(np.maximum(self._position, 0), self._junction)
        self._truncated = (self._time > self._junction) & ~self._terminated
        info = self._info()
        rewards = (info["success"] & active).astype(np.float64)
        return self._observe(), rewards, self._terminated.copy(), self._truncated.copy(), info

    def _info(self) -> dict[str, Any]:
        return {"success": self._y == self._goal, "_success": self._rows.copy()}

    def _observe(self) -> npt.NDArray[np.float32]:
        """Returns `(N, 4)`: y, clue, flag, noise."""
        observations = np.empty((self.num_envs, 4), dtype=np.float32)
        observations[:, 0] = self._y
        observations[:, 1] = self._goal * (self._time == 0)
        observations[:, 2] = (self._position == self._junction) & ~self._terminated
        noise = hash_counter(self._seeds, self._time.view(np.uint64)) % np.uint64(3)
        observations[:, 3] = noise.view(np.int64) - 1
        return observations


class TMazeOracle:
    """The optimal policy: it keeps the clue and turns by it at the junction. Success rate 1."""

    def __init__(self) -> None:
        self._clue: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def reset(self, num_envs: int) -> None:
        """Starts episodes in `num_envs` rows: forgets all clues."""
        self._clue = np.zeros(num_envs, dtype=np.float32)

    def step(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Returns actions `(N,)` for observations `(N, 4)`."""
        clue = observations[:, 1]
        self._clue = np.where(clue != 0, clue, self._clue)
        return oracle_action(observations, self._clue)


def oracle_action(
    observations: npt.NDArray[np.float32], clue: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Returns the optimal actions `(...)` for observations `(..., 4)` and clues `(...)`."""
    turn = np.where(clue > 0, UP, DOWN)
    return np.where(observations[..., 2] > 0, turn, RIGHT)
