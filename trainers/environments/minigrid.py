"""Minigrid-Memory."""

from __future__ import annotations

from rate.envs.minigrid_memory import MinigridMemory, MinigridMemoryOptions, minigrid_memory_spec
from trainers.environment import Environment


class Record(Environment):
    """Minigrid-Memory; its expert knows the cue and walks the shortest way."""

    name = "minigrid"
    options = MinigridMemoryOptions
    expert_class = "datamodules.minigrid_memory:MinigridMemoryExpert"
    spec_of = staticmethod(minigrid_memory_spec)
    env = MinigridMemory
    needs = ("minigrid",)
    extra = "minigrid"
    length_name = "size of the grid"
    success_without_memory = 1 / 2
    shortest = 7
    num_envs = 25
    group = ("cue", ("ball", "key"))
