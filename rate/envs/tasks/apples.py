"""The distractor phase of Memory-RL's pixel tasks: a room of apples that come back when eaten.

The functions read and replace three arrays of a task's state: `planted`, whether a cell has an
apple at the start; `ripe`, whether it has one now; and `eaten`, the frame at which its last one was
eaten. All are `(n, 22)`, in the order of `CELLS`.
"""

from __future__ import annotations

import numpy as np

from rate.envs.tasks.base import Array, State
from rate.envs.tasks.pixel_rooms import cells_of, from_art, towards
from rate.envs.tasks.sampling import EpisodeSampler

APPLE = 3  # code of a cell with an apple, after those of `pixel_rooms`
APPLE_COLOUR = (140, 178, 0)
NUM_APPLES, RESPAWN, REWARD = 10, 20, 1.0
_ART = (
    "###########",
    "#a a a a a#",
    "# a a a a #",
    "#a a a a a#",
    "# a a a a #",
    "#a a + a a#",
    "###########",
)
ROOM = from_art(_ART)
START = cells_of(_ART, "+")  # (1, 2)
CELLS = cells_of(_ART, "a")  # (22, 2)
_INDEX = np.full(ROOM.shape, -1)  # which of CELLS a cell is
_INDEX[tuple(CELLS.T)] = np.arange(len(CELLS))
_NEVER = 1 << 40


def plant(sampler: EpisodeSampler) -> State:
    """Returns the three arrays at the start of the phase.

    10 cells have an apple; the reset option `apples` fixes which, or another number of them.
    """
    count = sampler.count("apples", NUM_APPLES)
    cells = sampler.distinct("apples", CELLS, count)  # (n, count, 2)
    planted = np.zeros((len(cells), len(CELLS)), dtype=bool)
    np.put_along_axis(planted, _INDEX[cells[..., 0], cells[..., 1]], True, axis=1)
    return {"planted": planted, "ripe": planted, "eaten": np.full(planted.shape, _NEVER)}


def show(state: State, boards: Array, rows: Array) -> None:
    """Draws the apples of the rows `(n,)` bool on boards `(n, H, W)`, in place."""
    row, cell = np.nonzero(state["ripe"] & rows[:, None])
    boards[row, CELLS[cell, 0], CELLS[cell, 1]] = APPLE


def eat(state: State, rows: Array, frames: Array) -> Array:
    """Lets the players eat and apples grow; returns which players eat one, `(n,)` bool.

    An apple is back more than 20 frames after it was eaten. It also grows under a player, who eats
    it one frame later.

    Args:
        state: The state, with `player` `(n, 2)`.
        rows: Which rows are in this phase, `(n,)` bool.
        frames: Frames since the start of the phase, `(n,)`.
    """
    players, every = state["player"], np.arange(len(rows))
    index = _INDEX[players[:, 0], players[:, 1]]
    eats: Array = rows & (index >= 0) & state["ripe"][every, index]
    ripe, eaten = state["ripe"].copy(), state["eaten"].copy()
    ripe[eats, index[eats]] = False
    eaten[eats, index[eats]] = frames[eats]
    grown = state["planted"] & (frames[:, None] > eaten + RESPAWN)
    state |= {"ripe": ripe | (grown & rows[:, None]), "eaten": eaten}
    return eats


def seek(state: State, frames: Array) -> Array:
    """Returns actions `(n,)` towards the apple that can be eaten first."""
    distance = np.abs(state["player"][:, None] - CELLS).sum(axis=2)  # (n, 22)
    cost = np.maximum(distance, _frames_left(state, frames))
    return towards(state["player"], CELLS[cost.argmin(axis=1)])


def waits(state: State, frames: Array) -> Array:
    """Returns how soon the cells have an apple, `(n, 22)`: from 0 (now) to 1, or -1 for never."""
    left = _frames_left(state, frames)
    found: Array = np.where(left == _NEVER, -1, left / (RESPAWN + 1))
    return found


def _frames_left(state: State, frames: Array) -> Array:
    """Returns the frames until the cells have an apple, `(n, 22)`."""
    left = np.clip(state["eaten"] + RESPAWN + 1 - frames[:, None], 0, RESPAWN + 1)
    found: Array = np.where(state["planted"], np.where(state["ripe"], 0, left), _NEVER)
    return found
