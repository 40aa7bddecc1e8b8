"""Memory Maze."""

from __future__ import annotations

from rate.envs.memory_maze import MemoryMaze, MemoryMazeOptions, memory_maze_spec
from trainers.environment import Environment


class Record(Environment):
    """Memory Maze; its expert knows the maze and all targets."""

    name = "memory_maze"
    options = MemoryMazeOptions
    expert_class = "datamodules.memory_maze:MemoryMazeExpert"
    spec_of = staticmethod(memory_maze_spec)
    env = MemoryMaze
    needs = ("memory_maze", "dm_control")
    extra = "memory-maze"
    num_envs = 12
