"""Memory Maze."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rate.envs.memory_maze import MemoryMaze, MemoryMazeOptions, memory_maze_spec
from rate.envs.spec import EnvironmentSpec
from trainers.environment import Environment

if TYPE_CHECKING:
    from datamodules.collector import Expert


class Record(Environment):
    """Memory Maze; its expert knows the maze and all targets."""

    name = "memory_maze"
    options = MemoryMazeOptions
    env = MemoryMaze
    needs = ("memory_maze", "dm_control")
    extra = "memory-maze"
    num_envs = 12

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return memory_maze_spec(settings)

    def expert(self, noise: float) -> Expert:
        from datamodules.memory_maze import MemoryMazeExpert

        return MemoryMazeExpert(noise)
