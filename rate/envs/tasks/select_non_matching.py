"""A surrogate of DMLab's `rooms_select_nonmatching_object` (Beattie et al. 2016) in coloured cells.

The trials are those of the level: an example object and a pad in the first room, two objects in the
second, of which one is like the example. Observations and moves are much simpler. With the default
`distance` an expert takes 30 steps for a trial, and six of them fill an episode: its return is 66;
that of people in the level is 65.9 (Espeholt et al. 2018, arXiv:1802.01561).
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, Outcome, State, Task
from rate.envs.tasks.options import TaskOptions
from rate.envs.tasks.pixel_rooms import (
    COLOURS,
    FLOOR,
    PLAYER,
    VIEW,
    WALL,
    towards,
    towards_door,
    walk,
    window,
)
from rate.envs.tasks.sampling import EpisodeSampler, hashes

NUM_OBJECTS = 36  # 12 shapes of 3 kinds in the level; 12 hues of 3 values here
_PAD = 3  # the code of a cell
_FIRST_OBJECT = 4
_OBJECT_COLOURS = [
    [round(255 * part) for part in hsv_to_rgb(hue / 12, 1, value)]
    for hue in range(12)
    for value in (1, 0.7, 0.4)
]
_COLOURS = np.array([*COLOURS, (255, 255, 255), *_OBJECT_COLOURS], dtype=np.uint8)
_WIDTH, _MIDDLE, _SIDES = 7, 3, np.array([1, 5])  # columns of the platforms
_TOP, _HALL = 1, 2
_PAD_REWARD, _OBJECT_REWARD = 1.0, 10.0


@dataclass(frozen=True)
class SelectNonMatchingOptions(TaskOptions):
    """Settings of the task.

    Attributes:
        distance: The number of steps from the start of a room to its other end.
    """

    distance: int = 14

    def __post_init__(self) -> None:
        self.check_count("distance", 3)  # less, and the example is seen from the pad


class SelectNonMatching(Task[SelectNonMatchingOptions]):
    """Choose the object that is unlike the example, trial after trial.

    A trial begins beside the example, which is out of reach. The pad at the other end of the room
    leads to the second room: +1. At its end there are the same object as the example and another
    one. Walking into one ends the trial: +10 for the other, -10 for the same. The example stays the
    same for the episode; the other object and all sides are drawn for each trial. An episode has
    `length` steps. Success is that all choices were right, and that there was one.

    Observations are `(3, 5, 5)` uint8: the RGB colours of the cells around the player; each of the
    36 objects has its own. Actions are north, south, west and east. The privileged state is the
    example, one-hot `(36,)`.

    Reset options: `objects`, the example and the other object of the first trial, 0 to 35; `sides`,
    where the example and, in the second room, the other object are then: 0 left, 1 right.
    """

    options_class = SelectNonMatchingOptions
    default_length = 180  # 12 seconds, four frames a step
    observation_key = "image"
    num_actions = 4

    @property
    def shortest(self) -> int:
        return 2 * self.options.distance + 2  # one trial

    @property
    def best_return(self) -> float:
        trials, rest = divmod(self.lengths[1], 2 * self.options.distance + 2)
        in_pad = rest >= self.options.distance
        return trials * (_PAD_REWARD + _OBJECT_REWARD) + _PAD_REWARD * in_pad

    @property
    def own_space(self) -> spaces.Box:
        return spaces.Box(0, 255, (3, VIEW, VIEW), np.uint8)

    @property
    def privileged_space(self) -> spaces.Box:
        return spaces.Box(0, 1, (NUM_OBJECTS,), np.float32)

    def steps(self, length: Any) -> Any:
        return length

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        count = len(length)
        return {
            "objects": sampler.distinct("objects", np.arange(NUM_OBJECTS), 2),
            "sides": sampler.between("sides", 0, 1, (2,)),
            "player": self._start(count),
            "second_room": np.zeros(count, dtype=bool),
            "trial": np.zeros(count, dtype=np.int64),
            "wrong": np.zeros(count, dtype=np.int64),
        }

    def observe(self, state: State) -> Array:
        count, second = len(state["trial"]), state["second_room"]
        rows = np.arange(count)
        boards = np.full((count, self.options.distance + 3, _WIDTH), WALL, dtype=np.uint8)
        boards[:, 1:-1, 1:-1] = FLOOR
        boards[~second, _TOP, _MIDDLE] = _PAD
        example, other = (_FIRST_OBJECT + state["objects"]).T
        beside, right, wrong = self._columns(state)
        boards[rows[~second], -2, beside[~second]] = example[~second]
        boards[rows[second], _TOP, right[second]] = other[second]
        boards[rows[second], _TOP, wrong[second]] = example[second]
        boards[rows, state["player"][:, 0], state["player"][:, 1]] = PLAYER
        palettes = np.broadcast_to(_COLOURS, (count, *_COLOURS.shape))
        return window(boards, state["player"], palettes)

    def reveal(self, state: State) -> Array:
        one_hot: Array = state["objects"][:, :1] == np.arange(NUM_OBJECTS)
        return one_hot.astype(np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        count, second = len(actions), state["second_room"]
        beside, right_column, wrong_column = self._columns(state)
        free = np.zeros((count, self.options.distance + 3, _WIDTH), dtype=bool)
        free[:, 1:-1, 1:-1] = True
        free[np.flatnonzero(~second), -2, beside[~second]] = False
        player = walk(free, state["player"], actions)
        row, column = player.T
        on_pad = ~second & (row == _TOP) & (column == _MIDDLE)
        right = second & (row == _TOP) & (column == right_column)
        wrong = second & (row == _TOP) & (column == wrong_column)
        moves_on = on_pad | right | wrong
        state["player"] = np.where(moves_on[:, None], self._start(count), player)
        state["second_room"] = (second | on_pad) & ~right & ~wrong
        state["trial"] = state["trial"] + (right | wrong)
        state["objects"], state["sides"] = self._next_trial(state, right | wrong)
        state["wrong"] = state["wrong"] + wrong
        reward = _PAD_REWARD * on_pad + _OBJECT_REWARD * (right.astype(np.int64) - wrong)
        success = (state["trial"] > 0) & (state["wrong"] == 0)
        return Outcome(reward, np.zeros(count, dtype=bool), success)

    def oracle(self, state: State) -> Array:
        _, right, _ = self._columns(state)
        pad = np.broadcast_to((_TOP, _MIDDLE), state["player"].shape)
        goal = np.stack([np.full(len(right), _TOP), right], axis=1)
        select = towards_door(state["player"], goal, _HALL)
        actions: Array = np.where(state["second_room"], select, towards(state["player"], pad))
        return actions

    def _columns(self, state: State) -> tuple[Array, Array, Array]:
        """Returns the columns `(n,)` of the example, of the right and of the wrong object."""
        first, second = state["sides"].T
        return _SIDES[first], _SIDES[second], _SIDES[1 - second]

    def _next_trial(self, state: State, rows: Array) -> tuple[Array, Array]:
        """Returns objects and sides `(n, 2)`, drawn anew in some rows; the example stays."""
        seed, trial, example = state["seed"], state["trial"], state["objects"][:, 0]
        other = (example + 1 + hashes(seed, "other", step=trial) % (NUM_OBJECTS - 1)) % NUM_OBJECTS
        sides = hashes(seed, "new sides", (2,), step=trial) % 2
        objects = np.stack([example, other], axis=1)
        new = rows[:, None]
        return np.where(new, objects, state["objects"]), np.where(new, sides, state["sides"])

    def _start(self, count: int) -> Array:
        return np.broadcast_to((self.options.distance + 1, _MIDDLE), (count, 2))
