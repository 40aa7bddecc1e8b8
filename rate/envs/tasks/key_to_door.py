"""Key-to-Door: a key that is taken at the start opens a door at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rate.envs.tasks import apples
from rate.envs.tasks.base import Array, State
from rate.envs.tasks.pixel_rooms import EAST, NORTH, WALL, WEST, cells_of, from_art, towards
from rate.envs.tasks.sampling import EpisodeSampler
from rate.envs.tasks.three_phases import (
    EXPLORE,
    FIRST_CODE,
    REWARD,
    ThreePhases,
    ThreePhasesOptions,
)

_EXPLORE = (
    "  #######  ",
    "  #kkkkk#  ",
    "  #kkkkk#  ",
    "  ##   ##  ",
    "  #+++++#  ",
    "  #+++++#  ",
    "  #######  ",
)
_REWARD = (
    "           ",
    "   ##d##   ",
    "   #   #   ",
    "   # + #   ",
    "   #   #   ",
    "   #####   ",
    "           ",
)
_KEYS, _PLAYERS = cells_of(_EXPLORE, "k"), cells_of(_EXPLORE, "+")
_GATE, _GATE_COLUMNS = 3, (4, 6)  # the row between keys and players, and its open columns
_DOOR, _INDICATOR = cells_of(_REWARD, "d")[0], (0, 5)
_KEY_CODE, _DOOR_CODE, _INDICATOR_CODE = range(FIRST_CODE, FIRST_CODE + 3)
_COLOURS = np.array([(159, 81, 44), (134, 206, 235), (255, 255, 255)])


@dataclass(frozen=True)
class KeyToDoorOptions(ThreePhasesOptions):
    """Settings of Key-to-Door."""


class KeyToDoor(ThreePhases[KeyToDoorOptions]):
    """Key-to-Door: the key of the first phase opens the door of the last.

    In the first phase there is a key; when it is taken, a white cell is shown for one step. In the
    third, of 10 steps, the door can be entered by who has the key: +5 and success, once. The
    privileged state begins with whether the key was taken, and its row and column. See
    `ThreePhases` for all else.

    Without the key the reward cannot be had. But an expert always takes it, and then plays the same
    whether it remembers or not: imitation of experts succeeds without memory. The task is one of
    credit assignment, for data of mixed quality.

    Reset options: `key` and `player`, where they are at the start (row, column); `apples`, the
    cells (row, column) that have an apple at the start of the second phase.
    """

    options_class = KeyToDoorOptions
    rooms = np.stack([from_art(_EXPLORE), apples.ROOM, from_art(_REWARD)])
    starts = np.concatenate([apples.START, cells_of(_REWARD, "+")])
    reward_steps = 10
    num_hidden = 3

    def reveal_phase(self, state: State) -> Array:
        key = state["key"] / np.array(self.rooms.shape[1:])
        return np.concatenate([state["has_key"][:, None], key], axis=1)

    def explore(self, sampler: EpisodeSampler) -> State:
        key = sampler.choice("key", _KEYS)
        no_rows = np.zeros(len(key), dtype=bool)
        return {
            "key": key,
            "player": sampler.choice("player", _PLAYERS),
            "has_key": no_rows,
            "just_taken": no_rows,
            "entered": no_rows,
        }

    def paint(self, state: State, boards: Array, phase: Array) -> None:
        here = np.flatnonzero((phase == EXPLORE) & ~state["has_key"])
        boards[here, state["key"][here, 0], state["key"][here, 1]] = _KEY_CODE
        boards[(phase == EXPLORE) & state["just_taken"], *_INDICATOR] = _INDICATOR_CODE
        boards[phase == REWARD, *_DOOR] = _DOOR_CODE  # above the player

    def colours(self, state: State) -> Array:
        return np.broadcast_to(_COLOURS, (len(state["key"]), *_COLOURS.shape))

    def open_cells(self, state: State, phase: Array) -> Array:
        free: Array = self.rooms[phase] != WALL
        free[(phase == REWARD) & ~state["has_key"], *_DOOR] = False
        return free

    def interact(self, state: State, phase: Array) -> tuple[Array, Array]:
        at_key = (state["player"] == state["key"]).all(axis=1)
        state["just_taken"] = (phase == EXPLORE) & ~state["has_key"] & at_key
        state["has_key"] = state["has_key"] | state["just_taken"]
        at_door = (phase == REWARD) & (state["player"] == _DOOR).all(axis=1)
        paid = at_door & ~state["entered"]
        state["entered"] = state["entered"] | at_door
        return paid, state["entered"]

    def expert(self, state: State) -> tuple[Array, Array]:
        row, column = state["player"].T
        low, high = _GATE_COLUMNS
        side = np.where(column < low, EAST, np.where(column > high, WEST, NORTH))
        # Along the row first: both rows of a column that was out of view are seen on the way.
        beside = np.stack([row, state["key"][:, 1]], axis=1)
        aligned = column == state["key"][:, 1]
        to_key = towards(state["player"], np.where(aligned[:, None], state["key"], beside))
        first = np.where(row >= _GATE, side, to_key)
        above = np.broadcast_to(_DOOR, state["player"].shape)
        off = np.where(column < _DOOR[1], EAST, WEST)
        last = np.where(column == _DOOR[1], towards(state["player"], above), off)
        return first, last
