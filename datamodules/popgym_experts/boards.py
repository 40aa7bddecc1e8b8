"""Experts for board games that need memory: Battleship and Minesweeper."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Cell = tuple[int, int]

_HIT_WEIGHT = 20.0


class Battleship:
    """Shoots at the cell that most placements of ships cover, given hits and misses.

    A placement is weighted by the hits that it covers; the game does not say when a ship is sunk.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        size = task.board_size
        placements = []
        for ship in task.ship_sizes:
            for row in range(size):
                for column in range(size - ship + 1):
                    mask = np.zeros((size, size), dtype=bool)
                    mask[row, column : column + ship] = True
                    placements += [mask.ravel(), mask.T.ravel()]
        self._placements = np.array(placements)  # (P, cells)

    def act(self, seen: int) -> Array:
        guessed = self._task.guesses.astype(bool)
        hit = (guessed & (self._task.board == 1)).ravel()
        missed = guessed.ravel() & ~hit
        fits = ~(self._placements & missed).any(1)
        weight = fits * _HIT_WEIGHT ** (self._placements & hit).sum(1)
        score = np.where(guessed.ravel(), -1.0, weight @ self._placements)
        return np.array(np.divmod(score.argmax(), self._task.board_size))


class MineSweeper:
    """Opens the cell that is least likely a mine, given every number seen so far.

    All arrangements of mines around the open cells are counted, each as often as the other mines
    can be spread over the rest of the board.
    """

    def __init__(self, task: Any) -> None:
        self._task = task

    def act(self, seen: int) -> Array:
        rows, columns = self._task.dims
        opened = self._task.hidden_grid == 2
        numbers = {
            (int(r), int(c)): int(self._task.neighbor_grid[r, c]) for r, c in np.argwhere(opened)
        }
        closed = {(int(r), int(c)) for r, c in np.argwhere(~opened)}
        rules = [
            (frozenset(_neighbours(cell, rows, columns) & closed), number)
            for cell, number in numbers.items()
        ]
        danger = mine_chances(closed, rules, self._task.num_mines)
        return np.array(min(sorted(closed), key=lambda cell: danger[cell]))


def mine_chances(
    closed: set[Cell], rules: list[tuple[frozenset[Cell], int]], mines: int
) -> dict[Cell, float]:
    """Returns the probability that each closed cell is a mine.

    Args:
        closed: The cells.
        rules: The number of mines among subsets of them.
        mines: Mines in all of them.
    """
    frontier = sorted(set().union(*(cells for cells, _ in rules)))
    rest = len(closed) - len(frontier)
    # Arrangements by number of mines: how many, and in how many each frontier cell is one.
    counts = {0: (1, np.zeros(0))}
    order: list[Cell] = []
    for cells, own in _components(frontier, rules):
        order += cells
        counts = _combined(counts, _arrangements(cells, own), mines)
    total, each, spread = 0.0, np.zeros(len(order)), 0.0
    for used, (number, cell_counts) in counts.items():
        if 0 <= mines - used <= rest:
            ways = comb(rest, mines - used)
            total += number * ways
            each += cell_counts * ways
            spread += number * ways * (mines - used)
    chances = dict(zip(order, (each / total).tolist(), strict=True))
    elsewhere = spread / total / rest if rest else 0.0
    return {cell: chances.get(cell, elsewhere) for cell in closed}


def _components(
    frontier: list[Cell], rules: list[tuple[frozenset[Cell], int]]
) -> Iterator[tuple[list[Cell], list[tuple[frozenset[Cell], int]]]]:
    """Returns the groups of cells that rules connect; each can be counted separately."""
    left = set(frontier)
    while left:
        found = {min(left)}
        while True:
            own = [rule for rule in rules if rule[0] & found]
            reached = found.union(*(cells for cells, _ in own))
            if reached == found:
                break
            found = reached
        yield sorted(found), own
        left -= found


def _arrangements(
    cells: list[Cell], rules: list[tuple[frozenset[Cell], int]]
) -> dict[int, tuple[int, Array]]:
    """Returns the counts of arrangements that obey the rules; see `mine_chances`."""
    found: dict[int, tuple[int, Array]] = {}
    of_cell = [[i for i, (members, _) in enumerate(rules) if cell in members] for cell in cells]
    wanted = [number for _, number in rules]
    room = [len(members) for members, _ in rules]
    chosen = np.zeros(len(cells))

    def place(index: int) -> None:
        if index == len(cells):
            used = int(chosen.sum())
            number, each = found.get(used, (0, np.zeros(len(cells))))
            found[used] = number + 1, each + chosen
            return
        for mine in (0, 1):
            for rule in of_cell[index]:
                wanted[rule] -= mine
                room[rule] -= 1
            if all(0 <= wanted[rule] <= room[rule] for rule in of_cell[index]):
                chosen[index] = mine
                place(index + 1)
            for rule in of_cell[index]:
                wanted[rule] += mine
                room[rule] += 1
        chosen[index] = 0

    place(0)
    return found


def _combined(
    left: dict[int, tuple[int, Array]], right: dict[int, tuple[int, Array]], mines: int
) -> dict[int, tuple[int, Array]]:
    """Returns the combined counts of two independent sets of cells."""
    both: dict[int, tuple[int, Array]] = {}
    for used_left, (number_left, each_left) in left.items():
        for used_right, (number_right, each_right) in right.items():
            used = used_left + used_right
            if used <= mines:
                each = np.concatenate([each_left * number_right, each_right * number_left])
                number, before = both.get(used, (0, np.zeros(len(each))))
                both[used] = number + number_left * number_right, before + each
    return both


def _neighbours(cell: Cell, rows: int, columns: int) -> set[Cell]:
    return {
        (r, c)
        for r in range(max(cell[0] - 1, 0), min(cell[0] + 2, rows))
        for c in range(max(cell[1] - 1, 0), min(cell[1] + 2, columns))
        if (r, c) != cell
    }
