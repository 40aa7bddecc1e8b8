"""The frame of Memory-RL's pixel tasks: explore, collect apples, be rewarded.

Visual Match and Key-to-Door are tasks of Hung et al. (2019, "Optimizing agent behavior over long
time scales by transporting value"); here they are as in Memory-RL (Ni et al. 2023,
arXiv:2307.03864), step by step. Each phase is a room of its own. The last observation of a phase is
never seen: the first one of the next phase replaces it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from rate.envs.tasks import apples
from rate.envs.tasks.base import Array, O, Outcome, State, Task
from rate.envs.tasks.options import TaskOptions
from rate.envs.tasks.pixel_rooms import COLOURS, PLAYER, VIEW, WALL, walk, window
from rate.envs.tasks.sampling import EpisodeSampler

EXPLORE, DISTRACTOR, REWARD = range(3)
FIRST_CODE = apples.APPLE + 1  # of the codes of cells that a task adds
FINAL_REWARD = 5.0
_EXPLORE_STEPS = 15
_APPLES_PER_STEP = 0.37  # the expert's, measured at 60 to 500 steps
_COLOURS = np.array([*COLOURS, apples.APPLE_COLOUR])


@dataclass(frozen=True)
class ThreePhasesOptions(TaskOptions):
    """Settings of a task of three phases.

    Attributes:
        distractor: The number of steps of the second phase.
    """

    distractor: int = 60

    def __post_init__(self) -> None:
        self.check_count("distractor", 1)


class ThreePhases(Task[O]):
    """A task of three phases; a subclass adds the first and the last.

    An episode has 15, `length` and `reward_steps` steps in them. Observations are `(3, 5, 5)`
    uint8: the RGB colours of the cells around the player. Actions are north, south, west and east;
    a move into a wall has no effect. `length` is the number of steps of the second phase; the
    default is the setting `distractor`. There each apple is worth +1. The last phase is worth +5.
    The privileged state is what the subclass says; the phase, one-hot `(3,)`; the player's row and
    column, scaled to [0, 1]; and for each of 22 cells how soon it has an apple, from 0 (it has one)
    to 1, or -1 for never.
    """

    options_class: ClassVar[type[Any]] = ThreePhasesOptions
    default_length: ClassVar[int] = ThreePhasesOptions.distractor
    length_name = "distractor phase (steps)"
    observation_key = "image"
    num_actions = 4

    rooms: ClassVar[Array]  # (3, 7, 11): the walls of each phase
    starts: ClassVar[Array]  # (2, 2): where the player begins the second and the third phase
    reward_steps: ClassVar[int]
    num_hidden: ClassVar[int]  # what `reveal_phase` returns

    @property
    def usual_length(self) -> int:
        length: int = self.options.distractor  # type: ignore[attr-defined]
        return length

    @property
    def best_return(self) -> float:
        return FINAL_REWARD + round(_APPLES_PER_STEP * self.lengths[1])

    @property
    def own_space(self) -> spaces.Box:
        return spaces.Box(0, 255, (3, VIEW, VIEW), np.uint8)

    @property
    def privileged_space(self) -> spaces.Box:
        size = self.num_hidden + 3 + 2 + len(apples.CELLS)
        return spaces.Box(-1, 1, (size,), np.float32)

    def steps(self, length: Any) -> Any:
        return _EXPLORE_STEPS + length + self.reward_steps

    @abstractmethod
    def explore(self, sampler: EpisodeSampler) -> State:
        """Returns what the first phase samples, `player` (n, 2) among it."""

    @abstractmethod
    def paint(self, state: State, boards: Array, phase: Array) -> None:
        """Draws what is not wall, player or apple on boards `(n, 7, 11)`, in place."""

    @abstractmethod
    def colours(self, state: State) -> Array:
        """Returns the RGB of the task's codes, from `FIRST_CODE` on: `(n, codes, 3)`."""

    def open_cells(self, state: State, phase: Array) -> Array:
        """Returns which cells the player can enter, `(n, 7, 11)` bool."""
        free: Array = self.rooms[phase] != WALL
        return free

    @abstractmethod
    def interact(self, state: State, phase: Array) -> tuple[Array, Array]:
        """Lets what stands in the first and last phase meet the player, who has moved.

        Returns:
            Whether the reward of the last phase is paid, and whether it was ever, `(n,)` bool.
        """

    @abstractmethod
    def reveal_phase(self, state: State) -> Array:
        """Returns what the first phase drew and what came of it, `(n, num_hidden)` in [-1, 1]."""

    @abstractmethod
    def expert(self, state: State) -> tuple[Array, Array]:
        """Returns an expert's actions in the first and in the last phase, `(n,)` each."""

    @property
    def in_first_phase(self) -> bool:
        """Whether the episode of a single environment is in its first phase."""
        return bool(self.state["time"][0] < _EXPLORE_STEPS)

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        return {**self.explore(sampler), **apples.plant(sampler)}

    def observe(self, state: State) -> Array:
        phase, player = self._phase(state, state["time"]), state["player"]
        boards = self.rooms[phase]  # (n, 7, 11)
        apples.show(state, boards, phase == DISTRACTOR)
        boards[np.arange(len(phase)), player[:, 0], player[:, 1]] = PLAYER
        self.paint(state, boards, phase)
        shared = np.broadcast_to(_COLOURS, (len(phase), *_COLOURS.shape))
        palettes = np.concatenate([shared, self.colours(state)], axis=1).astype(np.uint8)
        return window(boards, player, palettes)

    def advance(self, state: State, actions: Array) -> Outcome:
        time = state["time"] + 1
        phase, news = self._phase(state, state["time"]), self._phase(state, time)
        state["player"] = walk(self.open_cells(state, phase), state["player"], actions)
        eats = apples.eat(state, phase == DISTRACTOR, time - _EXPLORE_STEPS)
        paid, success = self.interact(state, phase)
        begin = self.starts[np.maximum(news, DISTRACTOR) - DISTRACTOR]  # (n, 2)
        state["player"] = np.where((news > phase)[:, None], begin, state["player"])
        reward = apples.REWARD * eats + FINAL_REWARD * paid
        return Outcome(reward, time >= self.steps(state["length"]), success)

    def reveal(self, state: State) -> Array:
        phase = self._phase(state, state["time"])[:, None] == np.arange(3)
        cell = state["player"] / np.array(self.rooms.shape[1:])
        waits = apples.waits(state, state["time"] - _EXPLORE_STEPS)
        parts = [self.reveal_phase(state), phase, cell, waits]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def oracle(self, state: State) -> Array:
        """Returns the expert's actions; it eats the apple that can be eaten first."""
        phase = self._phase(state, state["time"])
        first, last = self.expert(state)
        collect = apples.seek(state, state["time"] - _EXPLORE_STEPS)
        actions: Array = np.choose(phase, [first, collect, last])
        return actions

    def _phase(self, state: State, time: Array) -> Array:
        """Returns the phase `(n,)` after a number of steps."""
        second = time >= _EXPLORE_STEPS
        phase: Array = second.astype(np.int64) + (time >= _EXPLORE_STEPS + state["length"])
        return phase
