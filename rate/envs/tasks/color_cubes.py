"""Color-Cubes: fetch cubes whose places are shown at times, and change in between.

The task follows the description in arXiv:2601.15086 (AAMAS 2026), which asks that a memory be
rewritten, not only kept. Sizes, difficulties and the layout of observations are our own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, Outcome, State, Task
from rate.envs.tasks.options import TaskOptions
from rate.envs.tasks.pixel_rooms import towards, walk
from rate.envs.tasks.sampling import EpisodeSampler, hashes
from rate.errors import ConfigError

HIDDEN, ALL, POSITIONS = range(3)  # what an observation shows of the cubes
UPDATES = ("nothing", "all", "positions")  # by the same numbers


class Level(NamedTuple):
    """Settings that a difficulty decides; see `ColorCubesOptions`."""

    grid: int
    cubes: int
    phases: int
    teleport: float
    update: str


DIFFICULTIES = {
    "trivial": Level(5, 1, 1, 0.0, "nothing"),
    "easy": Level(5, 2, 3, 0.0, "nothing"),
    "medium": Level(7, 3, 5, 0.1, "all"),
    "extreme": Level(9, 5, 10, 0.2, "positions"),
}


@dataclass(frozen=True)
class ColorCubesOptions(TaskOptions):
    """Settings of Color-Cubes; what is None is decided by the difficulty.

    Attributes:
        difficulty: `trivial` (one cube, one phase: retention alone), `easy`, `medium` or `extreme`.
        grid: The number of rows and of columns.
        cubes: The number of cubes.
        phases: The number of cubes to fetch.
        teleport: Probability, at each step, that a cube other than the target is moved.
        update: What is shown when such a cube was moved: `nothing`; `all`, as at the start of a
            phase; or `positions`, without colours.
    """

    difficulty: str = "medium"
    grid: int | None = None
    cubes: int | None = None
    phases: int | None = None
    teleport: float | None = None
    update: str | None = None

    def __post_init__(self) -> None:
        self.check_choice("difficulty", list(DIFFICULTIES))
        for name, minimum in (("grid", 2), ("cubes", 1), ("phases", 1)):
            if getattr(self, name) is not None:
                self.check_count(name, minimum)
        level = self.level
        if level.cubes > level.grid**2 - 2:
            raise ConfigError(
                f"env.cubes is {level.cubes}; a grid of {level.grid} x {level.grid} cells has room "
                f"for {level.grid**2 - 2}, since the player and a moved cube need a cell each."
            )
        if not 0 <= level.teleport <= 1:
            raise ConfigError(f"env.teleport is {level.teleport}; it must be from 0 to 1.")
        if level.update not in UPDATES:
            raise ConfigError(
                f"env.update is {level.update!r}; choose one of: {', '.join(UPDATES)}."
            )

    @property
    def level(self) -> Level:
        """The settings, those of the difficulty where they are None."""
        given = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in Level._fields and getattr(self, field.name) is not None
        }
        return DIFFICULTIES[self.difficulty]._replace(**given)


class ColorCubes(Task[ColorCubesOptions]):
    """Fetch the cube of the target's colour, phase after phase.

    The player begins in the middle of the grid. At the start of a phase, one observation shows the
    target's colour and all cubes; from then on they are hidden, while cubes other than the target
    may be moved. Entering the target's cell is worth +1: that cube is moved to a free cell, and a
    phase with a new target begins. Success is that all phases are done, which ends the episode.
    `length` is the maximum number of steps; the default is twice what the longest ways need.

    Observations are float32: the player's row and column, scaled to [-1, 1]; whether cubes are
    shown with colours, and whether without; the target, one-hot `(cubes,)`; and row and column of
    each cube `(cubes, 2)`, in the order of colours, or in that of cells if colours are not shown.
    What is not shown is 0. Actions are north, south, west and east; a move off the grid has no
    effect. The privileged state is row and column of the target.

    Reset options: `positions`, the cells (row, column) of the cubes; `targets`, the index of the
    target in each phase.
    """

    options_class = ColorCubesOptions
    num_actions = 4

    def __init__(self, options: ColorCubesOptions | None = None, length: Any = None) -> None:
        self.level = (options or ColorCubesOptions()).level
        grid = np.arange(self.level.grid)
        self._cells = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
        self._centre = np.full(2, self.level.grid // 2)
        super().__init__(options, length)

    @property
    def shortest(self) -> int:
        return 2 * (self.level.grid - 1) * self.level.phases  # from corner to corner

    @property
    def usual_length(self) -> int:
        return 2 * self.shortest

    @property
    def best_return(self) -> float:
        return float(self.level.phases)

    @property
    def own_space(self) -> spaces.Box:
        cubes = self.level.cubes
        low = np.concatenate([[-1, -1], np.zeros(2 + cubes), -np.ones(2 * cubes)])
        return spaces.Box(low.astype(np.float32), 1, dtype=np.float32)

    @property
    def privileged_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (2,), np.float32)

    def steps(self, length: Any) -> Any:
        return length

    def expert_steps(self, length: Any) -> Any:
        return np.minimum(length, self.shortest)

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        cubes, phases = self.level.cubes, self.level.phases
        others = self._cells[(self._cells != self._centre).any(axis=1)]
        return {
            "positions": sampler.distinct("positions", others, cubes),
            "targets": sampler.between("targets", 0, cubes - 1, (phases,)),
            "player": np.broadcast_to(self._centre, (len(length), 2)),
            "phase": np.zeros(len(length), dtype=np.int64),
            "shown": np.full(len(length), ALL),
        }

    def observe(self, state: State) -> Array:
        cubes, shown = self.level.cubes, state["shown"]
        cells = self._scaled(self._ordered(state))  # (n, cubes, 2)
        target = self._target(state)[:, None] == np.arange(cubes)
        seen = np.zeros((len(shown), 4 + 3 * cubes), dtype=np.float32)
        seen[:, :2] = self._scaled(state["player"])
        seen[:, 2], seen[:, 3] = shown == ALL, shown == POSITIONS
        seen[:, 4 : 4 + cubes] = target & (shown == ALL)[:, None]
        seen[:, 4 + cubes :] = cells.reshape(len(shown), -1) * (shown != HIDDEN)[:, None]
        return seen

    def reveal(self, state: State) -> Array:
        return self._scaled(self._goal(state)).astype(np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        count, grid = len(actions), self.level.grid
        free = np.ones((count, grid, grid), dtype=bool)
        state["player"] = walk(free, state["player"], actions)
        taken = (state["player"] == self._goal(state)).all(axis=1)
        moved = ~taken & self._moves_other(state)
        cube = np.where(taken, self._target(state), self._other(state))
        state["positions"] = self._teleport(state, cube, taken | moved)
        state["phase"] = state["phase"] + taken
        update = UPDATES.index(self.level.update)
        state["shown"] = np.select([taken, moved], [ALL, update], HIDDEN)
        done = state["phase"] == self.level.phases
        return Outcome(taken.astype(np.float64), done, done)

    def oracle(self, state: State) -> Array:
        return towards(state["player"], self._goal(state))

    def _target(self, state: State) -> Array:
        """Returns the index of the target `(n,)`; after the last phase, that of the last."""
        phase = np.minimum(state["phase"], self.level.phases - 1)
        target: Array = state["targets"][np.arange(len(phase)), phase]
        return target

    def _goal(self, state: State) -> Array:
        """Returns the cell of the target, `(n, 2)`."""
        target = self._target(state)
        goal: Array = state["positions"][np.arange(len(target)), target]
        return goal

    def _moves_other(self, state: State) -> Array:
        """Whether a cube other than the target is moved at this step, `(n,)`."""
        chance = hashes(state["seed"], "teleport", step=state["time"]) * 2.0**-31
        moves: Array = (chance < self.level.teleport) & (self.level.cubes > 1)
        return moves

    def _other(self, state: State) -> Array:
        """Returns the index of the cube other than the target that may be moved, `(n,)`."""
        drawn = hashes(state["seed"], "other", step=state["time"]) % max(self.level.cubes - 1, 1)
        other: Array = (self._target(state) + 1 + drawn) % self.level.cubes
        return other

    def _teleport(self, state: State, cube: Array, rows: Array) -> Array:
        """Returns the cubes' cells `(n, cubes, 2)` after one cube of `rows` `(n,)` was moved."""
        occupied = np.concatenate([state["positions"], state["player"][:, None]], axis=1)
        cell = self._free_cell(occupied, hashes(state["seed"], "cell", step=state["time"]))
        positions = state["positions"].copy()
        positions[rows, cube[rows]] = cell[rows]
        return positions

    def _free_cell(self, occupied: Array, drawn: Array) -> Array:
        """Returns a random cell `(n, 2)` that is not among the cells `occupied` `(n, m, 2)`."""
        grid = self.level.grid
        is_free = np.ones((len(occupied), grid**2), dtype=bool)
        np.put_along_axis(is_free, occupied[..., 0] * grid + occupied[..., 1], False, axis=1)
        number = drawn % is_free.sum(axis=1)  # of the free cell that is taken
        chosen = (is_free.cumsum(axis=1) > number[:, None]).argmax(axis=1)
        cell: Array = self._cells[chosen]
        return cell

    def _ordered(self, state: State) -> Array:
        """Returns the cubes' cells `(n, cubes, 2)` in the order in which they are shown."""
        cells = state["positions"]
        by_cell = np.argsort(cells[..., 0] * self.level.grid + cells[..., 1], axis=1)
        sorted_cells = np.take_along_axis(cells, by_cell[..., None], axis=1)
        without_colours = (state["shown"] == POSITIONS)[:, None, None]
        ordered: Array = np.where(without_colours, sorted_cells, cells)
        return ordered

    def _scaled(self, cells: Array) -> Array:
        """Returns rows and columns scaled to [-1, 1]."""
        scaled: Array = 2 * cells / (self.level.grid - 1) - 1
        return scaled
