"""Passive Visual Match: a colour is seen at the start and must be chosen at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rate.envs.tasks import apples
from rate.envs.tasks.base import Array, State
from rate.envs.tasks.pixel_rooms import NORTH, WEST, cells_of, from_art, towards_door
from rate.envs.tasks.sampling import EpisodeSampler
from rate.envs.tasks.three_phases import (
    EXPLORE,
    FIRST_CODE,
    REWARD,
    ThreePhases,
    ThreePhasesOptions,
)

_EXPLORE = (
    "           ",
    "    ###    ",
    "    #+#    ",
    "    ###    ",
    "           ",
    "           ",
    "           ",
)
_REWARD = (
    "###########",
    "# b  c  e #",
    "#         #",
    "#         #",
    "####   ####",
    "   # + #   ",
    "   #####   ",
)
_TARGET_CELLS = cells_of(_EXPLORE, "#")  # (8, 2)
_DOORS = np.concatenate([cells_of(_REWARD, symbol) for symbol in "bce"])  # (3, 2)
_HALL = 2  # the row below the doors
_DOOR_COLOURS = np.diag([255, 255, 255])  # red, green and blue
COLOR_MAPS = ("per_episode", "per_env", "fixed")


@dataclass(frozen=True)
class VisualMatchOptions(ThreePhasesOptions):
    """Settings of Visual Match.

    Attributes:
        color_map: The colours of the three doors: `per_episode`, a random permutation of red, green
            and blue in each episode, so that colours must be matched; `per_env`, the permutation
            that `color_seed` decides, as the original draws one for each environment; `fixed`, red,
            green and blue from the left. Unless it is `per_episode`, a policy can learn which way
            to go for each colour.
        color_seed: Decides the permutation of `per_env`.
    """

    color_map: str = "per_episode"
    color_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("color_map", COLOR_MAPS)
        self.check_count("color_seed", 0)


class VisualMatch(ThreePhases[VisualMatchOptions]):
    """Passive Visual Match: the colour of the first phase must be chosen among the doors.

    In the first phase the player stands between eight walls, one of which is replaced by a square
    of the target's colour. In the third, of 15 steps, it sees doors of three colours. They vanish
    when it enters one: +5 and success if that has the target's colour. By chance 1/3 succeeds. The
    privileged state begins with the target, one-hot `(3,)`, and whether another door than the
    middle one was seen. See `ThreePhases` for all else.

    Reset options: `target`, the door 0 to 2 from the left; `target_cell`, where its colour is shown
    (row, column); `colors`, the RGB colours of the doors `(3, 3)`; `apples`, the cells (row,
    column) that have an apple at the start of the second phase.
    """

    options_class = VisualMatchOptions
    success_without_memory = 1 / 3
    rooms = np.stack([from_art(_EXPLORE), apples.ROOM, from_art(_REWARD)])
    starts = np.concatenate([apples.START, cells_of(_REWARD, "+")])
    reward_steps = 15
    num_hidden = 4

    def reveal_phase(self, state: State) -> Array:
        one_hot = state["target"][:, None] == np.arange(3)
        return np.concatenate([one_hot, state["looked"][:, None]], axis=1)

    def explore(self, sampler: EpisodeSampler) -> State:
        target = sampler.between("target", 0, 2)
        return {
            "target": target,
            "target_cell": sampler.choice("target_cell", _TARGET_CELLS),
            "colors": self._sample_colors(sampler),
            "player": np.repeat(cells_of(_EXPLORE, "+"), len(target), axis=0),
            "chosen": np.full(len(target), -1),
            "looked": np.zeros(len(target), dtype=bool),
        }

    def _sample_colors(self, sampler: EpisodeSampler) -> Array:
        """Returns the RGB colours of the doors, `(n, 3, 3)`."""
        colors = sampler.distinct("colors", _DOOR_COLOURS, 3, within=(0, 255))
        if self.options.color_map == "per_episode" or sampler.fixes("colors"):
            return colors
        order = np.arange(3)
        if self.options.color_map == "per_env":
            order = np.random.default_rng(self.options.color_seed).permutation(3)
        return np.broadcast_to(_DOOR_COLOURS[order], colors.shape)

    def paint(self, state: State, boards: Array, phase: Array) -> None:
        first = np.flatnonzero(phase == EXPLORE)
        row, column = state["target_cell"][first].T
        boards[first, row, column] = FIRST_CODE + state["target"][first]
        shut = np.flatnonzero((phase == REWARD) & (state["chosen"] < 0))
        boards[shut[:, None], _DOORS[:, 0], _DOORS[:, 1]] = FIRST_CODE + np.arange(3)

    def colours(self, state: State) -> Array:
        return state["colors"]

    def interact(self, state: State, phase: Array) -> tuple[Array, Array]:
        row, column = state["player"].T
        beside = (row <= _HALL + 1) & (column != _DOORS[1, 1])
        state["looked"] = state["looked"] | ((phase == REWARD) & beside)
        at_door = (state["player"][:, None] == _DOORS).all(axis=2)  # (n, 3)
        enters = (phase == REWARD) & (state["chosen"] < 0) & at_door.any(axis=1)
        state["chosen"] = np.where(enters, at_door.argmax(axis=1), state["chosen"])
        success = state["chosen"] == state["target"]
        return enters & success, success

    def expert(self, state: State) -> tuple[Array, Array]:
        first = np.full(len(state["target"]), NORTH)  # cannot move
        enter = towards_door(state["player"], _DOORS[state["target"]], _HALL)
        # From the middle of the hall the middle door alone is in view. Where colours are drawn for
        # each episode, an expert that knew the others could not be imitated.
        searches = ~state["looked"] & (state["target"] != 1) & (state["player"][:, 0] <= _HALL)
        searches &= self.options.color_map == "per_episode"
        return first, np.where(searches, WEST, enter)
