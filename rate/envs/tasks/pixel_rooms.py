"""Rooms of coloured cells, seen from above through a window that is centred on the player.

The pixel tasks of Memory-RL (Ni et al. 2023, arXiv:2307.03864) and of Hung et al. (2019) are such
rooms: a board of characters, a player that walks in four directions, and an observation that is the
5 x 5 cells around the player in RGB. Cells beyond the board have the colour of the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Cell = tuple[int, int]

NORTH, SOUTH, WEST, EAST = range(4)
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
VIEW, _MARGIN = 5, 2

# What a cell shows. Further codes belong to the tasks.
FLOOR, WALL, PLAYER = range(3)
COLOURS = ((204, 204, 204), (25, 25, 25), (228, 148, 109))
"""RGB of floor, wall and player."""


def from_art(art: Sequence[str]) -> Array:
    """Returns the board `(H, W)` uint8 of rows of characters: `#` is a wall, all else floor."""
    walls: Array = np.array([list(row) for row in art]) == "#"
    return walls.astype(np.uint8)


def cells_of(art: Sequence[str], character: str) -> Array:
    """Returns the cells `(n, 2)` of a character, row by row."""
    return np.argwhere(np.array([list(row) for row in art]) == character)


def walk(free: Array, players: Array, actions: Array) -> Array:
    """Returns the players' cells `(n, 2)` after one move each; a blocked move has no effect.

    Args:
        free: Which cells can be entered, `(n, H, W)` bool.
        players: Cells `(n, 2)`.
        actions: `(n,)`: north, south, west, east.
    """
    size = np.array(free.shape[1:])
    ahead = players + MOVES[actions]
    inside = ((ahead >= 0) & (ahead < size)).all(axis=1)
    row, column = np.clip(ahead, 0, size - 1).T
    moves = inside & free[np.arange(len(players)), row, column]
    moved: Array = np.where(moves[:, None], ahead, players)
    return moved


def window(boards: Array, players: Array, palettes: Array) -> Array:
    """Returns what is seen, `(n, 3, 5, 5)` uint8: the colours of the cells around the players.

    Args:
        boards: Codes of cells `(n, H, W)`, the player's among them.
        players: Cells `(n, 2)`.
        palettes: RGB of each code, `(n, codes, 3)` uint8.
    """
    count, height, width = boards.shape
    padded = np.full((count, height + VIEW - 1, width + VIEW - 1), FLOOR, dtype=boards.dtype)
    padded[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = boards
    rows, near = np.arange(count)[:, None, None], np.arange(VIEW)
    lines = players[:, 0, None, None] + near[None, :, None]
    columns = players[:, 1, None, None] + near[None, None, :]
    seen = palettes[rows, padded[rows, lines, columns]]  # (n, 5, 5, 3)
    return np.ascontiguousarray(seen.transpose(0, 3, 1, 2))


def towards(players: Array, goals: Array) -> Array:
    """Returns actions `(n,)` that walk from cells to goals, both `(n, 2)`, first along columns."""
    gap = goals - players
    vertical = np.where(gap[:, 0] < 0, NORTH, SOUTH)
    horizontal = np.where(gap[:, 1] < 0, WEST, EAST)
    return np.where(gap[:, 0] != 0, vertical, horizontal)


def towards_door(players: Array, doors: Array, hall: int) -> Array:
    """Returns actions `(n,)` that walk to doors above a hall without entering another door.

    Args:
        players: Cells `(n, 2)`.
        doors: Cells `(n, 2)` in the row above the hall.
        hall: The row in which players walk along.
    """
    row, column = players.T
    below = np.stack([np.full(len(row), hall), doors[:, 1]], axis=1)
    along = np.where(row < hall, SOUTH, towards(players, below))
    return np.where((column == doors[:, 1]) & (row <= hall), NORTH, along)
