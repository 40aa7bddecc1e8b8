"""Action-Associative Retrieval: the first action must be repeated at the last step.

There are two states. In state 0 the first action, 0 or 1, leads to state 1. There actions have no
effect until the flag is 1 at the last step, where the agent must repeat its first action. Unlike in
the T-Maze, no observation holds the cue: it is the agent's own action. The task and its observation
are those of the code published with RATE (arXiv:2306.09459).

A policy that begins each episode with the same action succeeds without memory. Therefore compare
the success rate of each `cue` in `info`, and sample actions: a greedy policy shows one cue only.

Length and noise are hashes of the episode's seed and a counter. Rows of `RetrievalVector` equal
`Retrieval` to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rate.envs.autoreset import WAITING
from rate.envs.row_seeds import row_seeds
from rate.envs.spec import EnvironmentSpec, with_privileged_state
from rate.hashing import hash_counter

STAY = 2
MINIMUM_LENGTH = 3
UNKNOWN = -1  # the cue before the first action

# The noise takes the counters 0, 1, ..., one for each step; this one is beyond any step.
_LENGTH_COUNTER = (1 << 62) + 3

Array = npt.NDArray[Any]
Observation = Array | dict[str, Array]
Length = int | tuple[int, int]


@dataclass(frozen=True)
class RetrievalOptions:
    """Settings of Action-Associative Retrieval.

    Attributes:
        privileged: Observations also hold the privileged state (for an Oracle-DT): the first
            action, one-hot `(2,)`; zeros before it is taken.
    """

    privileged: bool = False


def retrieval_spec(options: RetrievalOptions | None = None) -> EnvironmentSpec:
    """Returns the specification: observations `(3,)`, 3 actions, target return 1."""
    space = _observation_space(options or RetrievalOptions())
    return EnvironmentSpec("retrieval", space, spaces.Discrete(3), target_return=1.0)


def _observation_space(options: RetrievalOptions) -> gymnasium.Space[Any]:
    low, high = np.array([[0, 0, -1], [1, 1, 1]], dtype=np.float32)
    vector = spaces.Box(low, high, dtype=np.float32)
    if not options.privileged:
        return vector
    return with_privileged_state("vector", vector, spaces.Box(0, 1, (2,), np.float32))


def _length_range(length: Length) -> tuple[int, int]:
    """Returns the shortest and longest episode of `length`, both included."""
    low, high = (length, length) if isinstance(length, int) else length
    if not MINIMUM_LENGTH <= low <= high:
        raise ValueError(
            f"Retrieval length {length!r}: an episode has at least {MINIMUM_LENGTH} steps (first "
            "action, delay, last action), and a range is (shortest, longest)"
        )
    return int(low), int(high)


class Retrieval(gymnasium.Env[Observation, np.int64]):
    """One episode of Action-Associative Retrieval.

    Observations are `(3,)` float32: `state` (0 before the first action, then 1), `flag` (1 at the
    last step only), `noise` (uniform over -1, 0, 1). With `options.privileged` they are a
    dictionary of that `vector` and `privileged` `(2,)` float32. Actions are 0, 1 and 2 (stay). A
    first action of 2 ends the episode without success. The reward is 1 if the last action repeats
    the first, else 0. `info` holds `success` and `cue`, the first action (-1 before it).

    Args:
        options: See `RetrievalOptions`.
        length: The number of steps of an episode, at least 3, or a range (both ends included) from
            which each reset samples one. The delay is `length - 2`.

    Raises:
        ValueError: If a length is below 3 or the range is empty.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, options: RetrievalOptions | None = None, length: Length = 90) -> None:
        self.options = options or RetrievalOptions()
        self.observation_space = _observation_space(self.options)
        self.action_space = spaces.Discrete(3)
        self._range = _length_range(length)
        self._seed, self._length, self._finished = 0, self._range[0], True
        self.time, self.cue, self._success = 0, UNKNOWN, False

    @property
    def max_steps(self) -> int:
        """The steps of the longest episode."""
        return self._range[1]

    @property
    def flag(self) -> bool:
        """Whether this is the last step, at which the first action must be repeated."""
        return not self._finished and self.time == self._length - 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        low, high = self._range
        self._seed = seed if seed is not None else int(self.np_random.integers(1 << 63))
        self._length = low + hash_counter(self._seed, _LENGTH_COUNTER) % (high - low + 1)
        self.time, self.cue, self._success, self._finished = 0, UNKNOWN, False, False
        return self._observe(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0."""
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"Retrieval action {action!r}: expected 0, 1 or 2")
        was_finished = self._finished
        if not was_finished:
            self._success = self.flag and action == self.cue
            self._finished = self.flag or (self.time == 0 and action == STAY)
            if self.time == 0:
                self.cue = int(action)
            self.time += 1
        reward = float(self._success and not was_finished)
        return self._observe(), reward, self._finished, False, self._info()

    def _info(self) -> dict[str, Any]:
        return {"success": bool(self._success), "cue": self.cue}

    def _observe(self) -> Observation:
        left = self.cue not in (UNKNOWN, STAY)
        noise = hash_counter(self._seed, self.time) % 3 - 1
        vector = np.array([left, self.flag, noise], dtype=np.float32)
        if not self.options.privileged:
            return vector
        return {
            "vector": vector,
            "privileged": np.array([self.cue == 0, self.cue == 1], np.float32),
        }


class RetrievalVector(VectorEnv[Observation, npt.NDArray[np.int64], Array]):
    """A vector environment of `N` rows in NumPy; each equals a `Retrieval` of its seed to the bit.

    There is no autoreset. A finished row keeps its last observation and flags, with reward 0, until
    `reset`; `reset(options={"reset_mask": mask})` with `mask (N,)` bool resets some rows only.

    Args:
        num_envs: The number `N` of rows.
        options: See `RetrievalOptions`.
        length: As in `Retrieval`; each row samples its own length from a range.

    Raises:
        ValueError: If there are no rows, a length is below 3 or the range is empty.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": [],
        **WAITING,
    }

    def __init__(
        self, num_envs: int, options: RetrievalOptions | None = None, length: Length = 90
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; at least one environment is needed")
        self.num_envs = num_envs
        self.options = options or RetrievalOptions()
        self.single_observation_space = _observation_space(self.options)
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._range = _length_range(length)
        self._seeds = np.zeros(num_envs, dtype=np.uint64)
        self._time, self._last = (np.zeros(num_envs, dtype=np.int64) for _ in range(2))
        self._cue: Array = np.full(num_envs, UNKNOWN)
        self._success = np.zeros(num_envs, dtype=bool)
        self._finished, self._rows = (np.ones(num_envs, dtype=bool) for _ in range(2))

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts episodes; an integer `seed` gives row `i` the seed `seed + i`."""
        rows = np.asarray((options or {}).get("reset_mask", self._rows), dtype=bool)
        if rows.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {rows.shape}; expected ({self.num_envs},)")
        seeds = row_seeds(self, seed)[rows]
        low, high = self._range
        counter = np.array([_LENGTH_COUNTER], dtype=np.uint64)
        spread = hash_counter(seeds, counter) % np.uint64(high - low + 1)
        self._seeds[rows] = seeds
        self._last[rows] = low - 1 + spread.astype(np.int64)
        self._cue[rows] = UNKNOWN
        for state in (self._time, self._success, self._finished):
            state[rows] = 0
        return self._observe(), self._info()

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Takes one action in each unfinished row; `actions` is `(N,)`."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() > STAY:
            raise ValueError(
                f"Retrieval actions: expected ({self.num_envs},) integers from 0 to 2, got shape "
                f"{actions.shape} with values from {actions.min()} to {actions.max()}"
            )
        active, first, flag = ~self._finished, self._time == 0, self._flag()
        succeeds = flag & (actions == self._cue)
        self._success |= succeeds
        self._finished |= flag | (active & first & (actions == STAY))
        self._cue = np.where(active & first, actions, self._cue)
        self._time += active
        rewards = succeeds.astype(np.float64)
        truncated = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), rewards, self._finished.copy(), truncated, self._info()

    def _flag(self) -> npt.NDArray[np.bool_]:
        flag: npt.NDArray[np.bool_] = ~self._finished & (self._time == self._last)
        return flag

    def _info(self) -> dict[str, Any]:
        return {
            "success": self._success.copy(),
            "_success": self._rows.copy(),
            "cue": self._cue.copy(),
            "_cue": self._rows.copy(),
        }

    def _observe(self) -> Observation:
        """Returns `(N, 3)`: state, flag, noise; with it the privileged state `(N, 2)`, if set."""
        vector = np.empty((self.num_envs, 3), dtype=np.float32)
        vector[:, 0] = (self._cue == 0) | (self._cue == 1)
        vector[:, 1] = self._flag()
        noise = hash_counter(self._seeds, self._time.view(np.uint64)) % np.uint64(3)
        vector[:, 2] = noise.view(np.int64) - 1
        if not self.options.privileged:
            return vector
        return {"vector": vector, "privileged": (self._cue[:, None] == [0, 1]).astype(np.float32)}
