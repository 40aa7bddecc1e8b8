"""The Endless T-Maze (arXiv:2601.15086): the clue of each corridor replaces the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, EpisodeSampler, Outcome, State, Task, TaskOptions
from rate.errors import ConfigError

FORWARD, LEFT, RIGHT = range(3)
PENALTY = 0.01
POSITIONS = ("flag", "x")
_LIMIT = 6  # times the longest way


@dataclass(frozen=True)
class EndlessTMazeOptions(TaskOptions):
    """Settings of `EndlessTMaze`.

    Attributes:
        shortest_corridor: The minimum length of a corridor, in steps between clue and junction.
        longest_corridor: The maximum; each corridor samples its length.
        position: What is observed of the place: a `flag` at the junction; or `x`, the place divided
            by `longest_corridor`, as published, which tells the junction of a corridor of that
            length alone.
    """

    shortest_corridor: int = 1
    longest_corridor: int = 9
    position: str = "flag"

    def __post_init__(self) -> None:
        self.check_count("shortest_corridor", 1)
        self.check_count("longest_corridor", 1)
        self.check_choice("position", POSITIONS)
        if self.shortest_corridor > self.longest_corridor:
            raise ConfigError(
                f"env.shortest_corridor={self.shortest_corridor} is above "
                f"env.longest_corridor={self.longest_corridor}."
            )


class EndlessTMaze(Task[EndlessTMazeOptions]):
    """`length` corridors, each with a clue at its start and a turn at its end.

    Observations are `(3,)` float32: the place (see `EndlessTMazeOptions.position`), and whether the
    clue is left, and right; a clue is shown at the start of its corridor alone. Actions are 0
    forward, 1 left, 2 right. The correct turn earns 1 and leads to the next corridor; a wrong one
    ends the episode with -.01. Any other action that is not a step forward costs .01. An episode is
    truncated after 6 times the steps of `length` corridors of the maximum length. Success is that
    of all turns.

    Reset options: `clues`, `(length,)` of -1 (left) and +1 (right); `lengths`, `(length,)`.
    """

    options_class = EndlessTMazeOptions
    default_length: ClassVar[int] = 5
    length_name = "corridors"
    num_actions = 3

    @property
    def best_return(self) -> float:
        return float(self.lengths[1])

    @property
    def own_space(self) -> spaces.Box:
        return spaces.Box(0, 1, (3,), np.float32)

    @property
    def privileged_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (2,), np.float32)  # clue, share of the corridor that is ahead

    def steps(self, length: Any) -> Any:
        return _LIMIT * self.expert_steps(length)

    def expert_steps(self, length: Any) -> Any:
        return (self.options.longest_corridor + 1) * length

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        count, options = self.lengths[1], self.options
        low, high = options.shortest_corridor, options.longest_corridor
        zeros = np.zeros(len(length), dtype=np.int64)
        return {
            "clues": sampler.choice("clues", [-1, 1], (count,)),
            "lengths": sampler.between("lengths", low, high, (count,)),
            "corridor": zeros,
            "x": zeros,
        }

    def observe(self, state: State) -> Array:
        clue, corridor = self._current(state, "clues"), self._current(state, "lengths")
        x, is_start = state["x"], (state["x"] == 0) & ~self._is_through(state)
        seen = np.zeros((len(x), 3), dtype=np.float32)
        flag = self.options.position == "flag"
        seen[:, 0] = x == corridor if flag else x / self.options.longest_corridor
        seen[:, 1] = is_start & (clue < 0)
        seen[:, 2] = is_start & (clue > 0)
        return seen

    def reveal(self, state: State) -> Array:
        ahead = self._current(state, "lengths") - state["x"]
        share = ahead / self.options.longest_corridor
        return np.stack([self._current(state, "clues"), share], axis=1, dtype=np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        at_junction = state["x"] == self._current(state, "lengths")
        turn = at_junction & (actions != FORWARD)
        right = turn & (actions == self._turn(state))
        forward = ~at_junction & (actions == FORWARD)
        state["x"] = np.where(right, 0, state["x"] + forward)
        state["corridor"] = state["corridor"] + right
        success = right & self._is_through(state)
        reward = np.where(right, 1.0, np.where(forward, 0.0, -PENALTY))
        return Outcome(reward, success | (turn & ~right), success)

    def oracle(self, state: State) -> Array:
        at_junction = state["x"] == self._current(state, "lengths")
        return np.where(at_junction, self._turn(state), FORWARD)

    def _is_through(self, state: State) -> Array:
        is_through: Array = state["corridor"] == state["length"]
        return is_through

    def _turn(self, state: State) -> Array:
        return np.where(self._current(state, "clues") > 0, RIGHT, LEFT)

    def _current(self, state: State, key: str) -> Array:
        """Returns the value `(n,)` of the current corridor; of the last one after it."""
        index = np.minimum(state["corridor"], self.lengths[1] - 1)
        value: Array = state[key][np.arange(len(index)), index]
        return value
