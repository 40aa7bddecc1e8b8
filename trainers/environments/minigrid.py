"""Minigrid-Memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rate.envs.minigrid_memory import MinigridMemory, MinigridMemoryOptions, minigrid_memory_spec
from rate.envs.spec import EnvironmentSpec
from trainers.environment import Environment

if TYPE_CHECKING:
    from datamodules.collector import Expert


class Record(Environment):
    """Minigrid-Memory; its expert knows the cue and walks the shortest way."""

    name = "minigrid"
    options = MinigridMemoryOptions
    env = MinigridMemory
    needs = ("minigrid",)
    extra = "minigrid"
    length_name = "size of the grid"
    shortest = 7
    num_envs = 25
    group = ("cue", ("ball", "key"))

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return minigrid_memory_spec(settings)

    def expert(self, noise: float) -> Expert:
        from datamodules.minigrid_memory import MinigridMemoryExpert

        return MinigridMemoryExpert(noise)
