"""An expert for mazes of which an agent sees the cells around it."""

from __future__ import annotations

from collections import deque
from typing import Any

_OBSTACLE, _GOAL = 1, 3
_MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # left, right, up, down

Cell = tuple[int, int]


class Labyrinth:
    """Goes to the nearest known cell that it has not visited; to the exit once it is seen.

    Of the ways to cells that are equally near it takes the one that goes straight on, if there is
    one.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._known: dict[Cell, int] = {}
        self._last = 0

    def act(self, seen: Any) -> int:
        grid, (y, x) = self._task.maze.grid, self._task.position
        for row in range(max(y - 1, 0), min(y + 2, grid.shape[0])):
            for column in range(max(x - 1, 0), min(x + 2, grid.shape[1])):
                self._known[row, column] = int(grid[row, column])
        exits = {cell for cell, content in self._known.items() if content == _GOAL}
        targets = exits or {
            cell
            for cell, content in self._known.items()
            if content != _OBSTACLE and not self._task.explored[cell]
        }
        self._last = self._first_move((int(y), int(x)), targets)
        return self._last

    def _first_move(self, start: Cell, targets: set[Cell]) -> int:
        """Returns the first move of a shortest path over known cells to one of the targets."""
        moves = sorted(range(4), key=lambda move: move != self._last)
        first = {start: self._last}
        queue = deque([start])
        while queue:
            cell = queue.popleft()
            if cell in targets:
                return first[cell]
            for move in moves:
                following = cell[0] + _MOVES[move][0], cell[1] + _MOVES[move][1]
                free = self._known.get(following, _OBSTACLE) != _OBSTACLE
                if free and following not in first:
                    first[following] = move if cell == start else first[cell]
                    queue.append(following)
        return self._last
