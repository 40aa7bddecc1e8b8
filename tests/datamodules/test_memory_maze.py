from __future__ import annotations

import math

import numpy as np
import pytest

from datamodules.memory_maze import MemoryMazeExpert, _clearance, _distances, _interpolate
from datamodules.memory_maze_explorer import MemoryMazeExplorer
from rate.envs import headless
from rate.envs.memory_maze import MemoryMaze, MemoryMazeOptions
from rate.envs.memory_maze_packages import check_packages
from rate.envs.memory_maze_simulator import CONTROLS, MazeState
from rate.errors import ConfigError

LAYOUT = np.ones((9, 9), dtype=bool)
LAYOUT[4, 1:] = False  # a wall across, with a gap at the left


class FlatMaze:
    """A stand-in for the environment: a disc without inertia that stops at walls."""

    unwrapped = property(lambda self: self)

    def __init__(self, start=(6.5, 1.5), target=(6.5, 7.5)):
        self.place, self.angle = np.array(start), 0.0
        self.target = np.array(target)

    @property
    def state(self):
        direction = np.array([math.cos(self.angle), math.sin(self.angle)])
        return MazeState(LAYOUT, self.place.copy(), direction, self.target, self.target[None])

    def step(self, action):
        wheel, steering = -CONTROLS[action]
        self.angle += 0.32 * steering
        place = self.place + 0.24 * wheel * self.state.direction
        x, y = np.floor(place).astype(int)
        if 0 <= x < 9 and 0 <= y < 9 and LAYOUT[y, x]:
            self.place = place
        return bool(np.linalg.norm(self.place - self.target) < 0.38)


def test_clearance_is_the_distance_to_the_nearest_wall():
    points = np.array([[4.5, 3.5], [4.5, 1.5], [0.5, 4.5], [4.5, 4.5]])
    np.testing.assert_allclose(
        _interpolate(_clearance(LAYOUT), points), [0.5, 1.5, 0.5, 0], atol=0.01
    )


def test_distances_go_around_walls():
    distances = _distances(_clearance(LAYOUT), np.array([6.5, 7.5]))
    at = _interpolate(distances, np.array([[6.5, 7.5], [6.5, 6.5], [6.5, 1.5]]))
    assert at[0] < 0.2
    assert at[1] == pytest.approx(1, abs=0.2)
    assert 12 < at[2] < 15  # through the gap; 6 straight through the wall


def test_the_expert_moves_around_a_wall_to_the_target():
    maze, expert = FlatMaze(), MemoryMazeExpert()
    expert.reset(maze, seed=0)
    steps = next(step for step in range(200) if maze.step(expert.act()))
    assert steps < 80


def test_noise_is_correlated_and_depends_on_the_seed():
    def actions(noise, seed):
        maze, expert = FlatMaze(), MemoryMazeExpert(noise)
        expert.reset(maze, seed)
        taken = []
        for _ in range(60):
            taken.append(expert.act())
            maze.step(taken[-1])
        return taken

    assert actions(0.0, 1) == actions(0.0, 2)
    assert actions(0.3, 1) == actions(0.3, 1)
    assert actions(0.3, 1) != actions(0.3, 2)
    noise = np.array(actions(1.0, 1))
    assert set(noise) == set(range(len(CONTROLS)))
    assert (noise[1:] == noise[:-1]).mean() > 0.5


def test_the_expert_reaches_targets_in_the_simulator():
    try:
        check_packages()
        headless.choose_renderer()
    except ConfigError as error:
        pytest.skip(str(error))
    env, expert = MemoryMaze(MemoryMazeOptions(), length=200), MemoryMazeExpert()
    env.reset(seed=0)
    expert.reset(env, seed=0)
    truncated = False
    while not truncated:
        _, _, _, truncated, info = env.step(expert.act())
    assert info["targets"] >= 5
    env.close()


def test_an_explorer_does_not_see_through_walls_or_behind_itself():
    maze, expert = FlatMaze(), MemoryMazeExplorer()
    expert.reset(maze, seed=0)
    assert not expert._seen.any()
    expert.act()  # it looks to the right, along the lower wall
    assert expert._seen[1, 6:].all()
    assert not expert._seen[:, :5].any()  # behind
    assert not expert._seen[5:].any()  # beyond the wall across
    assert not expert._found.any()
    maze = FlatMaze(target=(8.5, 1.5))
    expert.reset(maze, seed=0)
    expert.act()
    assert expert._found.all()


def played(expert, target):
    """The actions of an episode up to the target, and the number taken before it was seen."""
    maze, actions, blind = FlatMaze(target=target), [], 0
    expert.reset(maze, seed=0)
    for _ in range(300):
        actions.append(expert.act())
        blind += not expert._found.any()
        if maze.step(actions[-1]):
            return actions, blind
    pytest.fail(f"the target at {target} was not reached")


def test_an_explorer_does_not_know_what_it_has_not_seen():
    """Its actions do not depend on where the target is before it has seen it; it finds it."""
    near, far = (played(MemoryMazeExplorer(), (x, 7.5)) for x in (1.5, 7.5))
    blind = min(near[1], far[1])
    assert blind > 20
    assert near[0][:blind] == far[0][:blind]


def test_an_explorer_goes_back_to_what_it_remembers():
    maze, expert = FlatMaze(target=(8.5, 1.5)), MemoryMazeExplorer()
    expert.reset(maze, seed=0)
    while not maze.step(expert.act()):
        pass
    maze.place, maze.angle = np.array([4.5, 1.5]), math.pi  # it looks away
    assert next(step for step in range(100) if maze.step(expert.act())) < 30
