"""The base of the memory tasks: one array program, a Gymnasium environment and a vector of them.

A subclass of `Task` says, for `n` rows at once, what a reset samples, what is observed, what an
action does and what an expert would do. `Task` itself is the Gymnasium environment of one row, and
`TaskVector` that of N rows. Both run the same program, so that their rows are equal to the bit.

What an episode samples is a hash of its seed (see `rate.envs.tasks.sampling`), or what
`reset(options={...})` fixes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces

from rate.envs.spec import EnvironmentSpec, with_privileged_state
from rate.envs.tasks.options import TaskOptions
from rate.envs.tasks.rows import Array, Observation, Outcome, Rows, State
from rate.envs.tasks.sampling import EpisodeSampler
from rate.envs.tasks.vector import TaskVector
from rate.errors import ConfigError

__all__ = ["Array", "EpisodeSampler", "Outcome", "State", "Task", "TaskOptions", "TaskVector"]

Length = int | tuple[int, int]
O = TypeVar("O", bound=TaskOptions)  # noqa: E741 (the options)


class Task(gymnasium.Env[Observation, np.int64], ABC, Generic[O]):
    """A memory task; as an instance, its Gymnasium environment of one row.

    `info` holds `success` and `oracle_action`, the action of an expert that knows the whole state.
    `reset(options={NAME: value})` fixes what the reset would sample; so does `length` where lengths
    vary. With `options.privileged`, observations are a dictionary of the agent's own observation
    and of `privileged`, the hidden state. A finished episode keeps its observation and flags; its
    reward is 0.

    Args:
        options: The settings; None takes the defaults.
        length: The length of episodes, or a range (both ends included) of which each reset takes
            one; None takes the default. What it counts, the task says.

    Raises:
        ConfigError: If a length is too short or the range is empty.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own convention)

    options_class: ClassVar[type[Any]]
    default_length: ClassVar[int]
    length_name: ClassVar[str] = "episode length (steps)"
    # Of the best policy without memory, under default settings; None if it is not known.
    success_without_memory: ClassVar[float | None] = None
    observation_key: ClassVar[str] = "vector"  # of the agent's own observation, if privileged
    varies_length: ClassVar[bool] = False  # whether the lengths of generated data vary

    def __init__(self, options: O | None = None, length: Length | None = None) -> None:
        self.options: O = self.options_class() if options is None else options
        self.lengths = self._length_range(self.usual_length if length is None else length)
        self.max_steps = int(self.steps(self.lengths[1]))
        own = self.own_space
        self.own_shape = tuple(own.shape or ())
        self.observation_space: gymnasium.Space[Any] = own
        if self.options.privileged:
            key = self.observation_key
            self.observation_space = with_privileged_state(key, own, self.privileged_space)
        self.action_space = spaces.Discrete(self.num_actions)
        self._rows: Rows | None = None

    @property
    def usual_length(self) -> int:
        """The length that is taken if none is given."""
        return self.default_length

    @property
    def shortest(self) -> int:
        """The minimum length."""
        return 1

    @property
    def best_return(self) -> float:
        """The return of the expert at the maximum length."""
        return 1.0

    @property
    @abstractmethod
    def own_space(self) -> gymnasium.Space[Any]:
        """The space of the agent's own observation."""

    @property
    @abstractmethod
    def privileged_space(self) -> spaces.Box:
        """The space of the privileged state, with bounds."""

    @property
    @abstractmethod
    def num_actions(self) -> int:
        """The number of actions."""

    @abstractmethod
    def steps(self, length: Any) -> Any:
        """Returns the maximum number of steps at a length, an integer or `(n,)`."""

    def expert_steps(self, length: Any) -> Any:
        """Returns the maximum number of steps of the expert at a length; by default of anyone."""
        return self.steps(length)

    @abstractmethod
    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        """Returns the state at the start of `n` episodes, without `seed`, `length` and `time`.

        Args:
            sampler: Samples values by the names of reset options.
            length: The lengths of the episodes, `(n,)`.
        """

    @abstractmethod
    def observe(self, state: State) -> Array:
        """Returns the agent's own observations `(n, ...)`; `time` is the number of past steps."""

    @abstractmethod
    def reveal(self, state: State) -> Array:
        """Returns the privileged state `(n, ...)`."""

    @abstractmethod
    def advance(self, state: State, actions: Array) -> Outcome:
        """Takes one action `(n,)` in each row: puts new arrays into `state`.

        `time` is the number of steps before, and is incremented afterwards. An episode that has
        `steps(length)` steps and is not terminated is truncated. What is computed for finished rows
        is discarded. The arrays themselves are read-only.
        """

    @abstractmethod
    def oracle(self, state: State) -> Array:
        """Returns an expert's actions `(n,)`, also in finished rows, where they have no effect."""

    @classmethod
    def make_vector(
        cls, num_envs: int, options: Any = None, length: Length | None = None
    ) -> TaskVector:
        """Returns a vector environment of `num_envs` rows; the arguments are those of the class."""
        return TaskVector(cls(options, length), num_envs)

    @classmethod
    def spec_of(cls, options: Any = None) -> EnvironmentSpec:
        """Returns the specification for models; the name of the environment is left empty."""
        task = cls(options)
        spaces_ = task.observation_space, task.action_space
        return EnvironmentSpec("", *spaces_, target_return=task.best_return)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator.

        Raises:
            ConfigError: If an option is unknown, or its value is impossible.
        """
        super().reset(seed=seed)
        own = seed if seed is not None else int(self.np_random.integers(1 << 63))
        self._rows = self._rows or Rows(self, 1, single=True)
        seeds = np.array([own & ((1 << 64) - 1)], dtype=np.uint64)
        self._rows.reset(seeds, np.ones(1, dtype=bool), options or {})
        return self._first(self._rows.observe()), self._info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one action.

        Raises:
            ValueError: If it is not in the action space, or before the first reset.
        """
        rows = self._started
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(
                f"{type(self).__name__} action {action!r}: expected 0 to {self.num_actions - 1}"
            )
        reward = rows.step(np.array([action]))
        flags = bool(rows.terminated[0]), bool(rows.truncated[0])
        return self._first(rows.observe()), float(reward[0]), *flags, self._info()

    @property
    def state(self) -> State:
        """The state of the episode, with a first axis of one row."""
        return self._started.state

    @property
    def oracle_action(self) -> int:
        """The expert's action in the current state, as in `info`."""
        return int(self._started.oracle()[0])

    @property
    def _started(self) -> Rows:
        if self._rows is None:
            raise ValueError(f"{type(self).__name__} must be reset before the first step")
        return self._rows

    def _info(self) -> dict[str, Any]:
        success = bool(self._started.success[0])
        return {"success": success, "oracle_action": self.oracle_action}

    def _first(self, observations: Observation) -> Observation:
        if isinstance(observations, dict):
            return {key: value[0] for key, value in observations.items()}
        return observations[0]

    def _length_range(self, length: Length) -> tuple[int, int]:
        """Returns the minimum and maximum of `length`."""
        bounds = (length, length) if isinstance(length, (int, np.integer)) else _as_tuple(length)
        are_whole = all(isinstance(bound, (int, np.integer)) for bound in bounds)
        if len(bounds) != 2 or not are_whole or not self.shortest <= bounds[0] <= bounds[1]:
            raise ConfigError(
                f"{type(self).__name__} length {length!r}: the minimum is {self.shortest}, and a "
                "range is (minimum, maximum)"
            )
        return int(bounds[0]), int(bounds[1])


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Returns the elements of a value; none of one that is not a sequence."""
    return tuple(value) if isinstance(value, (tuple, list)) else ()
