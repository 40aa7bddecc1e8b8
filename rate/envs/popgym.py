"""POPGym (Morad et al. 2023): 16 partially observable tasks, each in three difficulties.

The environments are those of the `popgym` package. This module gives them the spaces that models
support (tuples, and counts stored as floats, become multi-discrete), a time-out, and episodes that
depend on their seed alone: labyrinths sample from the global generators of Python and NumPy, whose
states are restored.

POPGym's wrapper that adds the previous action to the observation is not needed: models here get
their own actions as tokens.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rate.advice import install
from rate.envs.popgym_tasks import DIFFICULTIES, TASKS
from rate.envs.serial_vector import SerialVectorEnv
from rate.envs.spec import EnvironmentSpec, with_privileged_state
from rate.errors import ConfigError
from rate.hashing import hash_counter
from rate.messages import did_you_mean

Array = npt.NDArray[Any]
Observation = Array | np.int64 | dict[str, Any]

_MAZE_COUNTER = (1 << 62) + 5  # counter of the hash that seeds labyrinths


@dataclass(frozen=True)
class PopgymOptions:
    """Settings of POPGym.

    Attributes:
        task: One of the 48 tasks, for example `RepeatFirstEasy`.
        flat_actions: Actions `(row, column)` (Battleship, MineSweeper) become one number, that of
            the cell. A policy that samples row and column independently may combine the row of one
            likely cell with the column of another.
        privileged: Observations also hold the privileged state (for an Oracle-DT), float32.
    """

    task: str = "RepeatFirstEasy"
    flat_actions: bool = False
    privileged: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            hint = did_you_mean(self.task, TASKS, cutoff=0.6)
            families = dict.fromkeys(task.family for task in TASKS.values())
            raise ConfigError(
                f"env.task is '{self.task}'; there is no such task in POPGym.{hint} There are "
                f"{', '.join(families)}, each with {', '.join(DIFFICULTIES)} at its end."
            )


def popgym_spec(options: PopgymOptions | None = None) -> EnvironmentSpec:
    """Returns the specification of a task; the target return is the mean of our expert."""
    options = options or PopgymOptions()
    env, target = Popgym(options), TASKS[options.task].expert_return
    name = f"popgym-{options.task}"
    return EnvironmentSpec(name, env.observation_space, env.action_space, target)


class Popgym(gymnasium.Env[Observation, Any]):
    """One task of POPGym.

    Observations are symbols, `()` or `(C,)` int64, or vectors, `(C,)` float32. With
    `options.privileged` they are a dictionary of `symbols` or `vector`, and `privileged` `(H,)`
    float32.

    Args:
        options: See `PopgymOptions`.
        length: Number of steps after which an episode is truncated; None is the task's own limit.

    Attributes:
        task: The environment of the package.
        seen: The last observation of `task`, unconverted.

    Raises:
        ConfigError: If the package is missing.
        ValueError: If the length is below 1.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, options: PopgymOptions | None = None, length: int | None = None) -> None:
        self.options = options or PopgymOptions()
        if length is not None and length < 1:
            raise ValueError(f"POPGym length {length}: an episode has at least 1 step")
        self.task = _make(self.options.task)
        steps = TASKS[self.options.task].steps
        self.max_steps = min(steps, length or steps)
        self._plain = _plain_space(self.task.observation_space)
        self._key = "vector" if isinstance(self._plain, spaces.Box) else "symbols"
        self.observation_space = self._plain
        if self.options.privileged:
            with _global_seed(0):
                self.task.reset(seed=0)
            privileged = spaces.Box(-np.inf, np.inf, _state(self.task).shape, np.float32)
            self.observation_space = with_privileged_state(self._key, self._plain, privileged)
        self.action_space = self.task.action_space
        if self.options.flat_actions and isinstance(self.action_space, spaces.MultiDiscrete):
            self.action_space = spaces.Discrete(int(np.prod(self.action_space.nvec)))
        self.time = 0
        self.seen: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(1 << 31)) if seed is None else seed
        self.time = 0
        maze = hash_counter(seed, _MAZE_COUNTER)  # NumPy's global generator takes 32 bits
        with _global_seed(maze):
            observation, _ = self.task.reset(seed=maze if hasattr(self.task, "maze_dims") else seed)
        return self._observe(observation), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one action."""
        if not self.action_space.contains(_as_element(self.action_space, action)):
            raise ValueError(f"{self.options.task} action {action!r}: not in {self.action_space}")
        if isinstance(self.action_space, spaces.Discrete):
            action = int(action)
            if self.action_space != self.task.action_space:
                action = np.array(divmod(action, int(self.task.action_space.nvec[1])))
        observation, reward, terminated, truncated, _ = self.task.step(action)
        self.time += 1
        truncated = bool(truncated) or (self.time >= self.max_steps and not terminated)
        return self._observe(observation), float(reward), bool(terminated), truncated, {}

    def close(self) -> None:
        self.task.close()

    def _observe(self, observation: Any) -> Observation:
        self.seen = observation
        plain: Any
        if isinstance(self._plain, spaces.Discrete):
            plain = np.int64(observation)
        else:
            parts = observation if isinstance(observation, tuple) else (observation,)
            plain = np.concatenate([np.ravel(part) for part in parts]).astype(self._plain.dtype)
        return (
            {self._key: plain, "privileged": _state(self.task)}
            if self.options.privileged
            else plain
        )


class PopgymVector(SerialVectorEnv):
    """`N` tasks side by side in this process; see `SerialVectorEnv`.

    Args:
        num_envs: The number `N` of rows.
        options: See `PopgymOptions`.
        length: As in `Popgym`.
    """

    def __init__(
        self, num_envs: int, options: PopgymOptions | None = None, length: int | None = None
    ) -> None:
        super().__init__(partial(Popgym, options, length), num_envs)


def _make(task: str) -> Any:
    try:
        import popgym.envs

        make = getattr(popgym.envs, task)
    except (ModuleNotFoundError, AttributeError) as error:  # labyrinths need mazelib
        raise ConfigError(
            f"POPGym's {task} cannot be made ({error}). Install what it needs with: "
            f"{install('popgym')}"
        ) from error
    with warnings.catch_warnings():  # labyrinths warn that they do not need memory
        warnings.simplefilter("ignore", DeprecationWarning)
        return make()


def _plain_space(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Returns the supported space that corresponds to a task's observation space."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.astype(np.int64))
    if isinstance(space, spaces.Tuple):
        return spaces.MultiDiscrete([int(part.n) for part in space.spaces])  # type: ignore[attr-defined]
    return space


def _as_element(space: gymnasium.Space[Any], action: Any) -> Any:
    """Returns an action with the dtype of the space; floats are not rounded to integers."""
    array = np.asarray(action)
    if np.issubdtype(array.dtype, np.integer) or isinstance(space, spaces.Box):
        array = array.astype(space.dtype)
    return array[()] if isinstance(space, spaces.Discrete) and array.ndim == 0 else array


def _state(task: Any) -> Array:
    """Returns the privileged state `(H,)` float32: all of its parts, concatenated."""
    state = task.get_state()
    parts = state if isinstance(state, tuple) else (state,)
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seeds the global generators of Python and NumPy; restores their states afterwards."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 (what the package uses)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
