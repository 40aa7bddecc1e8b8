"""The memory tasks: small environments that are arrays of N rows, by the names of their records.

A task is one file here, a subclass of `rate.envs.tasks.base.Task`, and one line in `TASKS`. Its
Gymnasium id, vector environment, expert, record, presets and tests follow from these.
"""

from __future__ import annotations

TASKS: dict[str, str] = {
    "active_tmaze": "rate.envs.tasks.memory_rl:ActiveTMaze",
    "arshot": "rate.envs.tasks.arshot:ARShot",
    "bits": "rate.envs.tasks.bits:Bits",
    "color_cubes": "rate.envs.tasks.color_cubes:ColorCubes",
    "distributed_memory": "rate.envs.tasks.distributed:DistributedMemory",
    "endless_tmaze": "rate.envs.tasks.endless_tmaze:EndlessTMaze",
    "key_to_door": "rate.envs.tasks.key_to_door:KeyToDoor",
    "memory_length": "rate.envs.tasks.bsuite:MemoryLength",
    "memory_size": "rate.envs.tasks.bsuite:MemorySize",
    "passive_tmaze": "rate.envs.tasks.memory_rl:PassiveTMaze",
    "select_non_matching": "rate.envs.tasks.select_non_matching:SelectNonMatching",
    "visual_match": "rate.envs.tasks.visual_match:VisualMatch",
}
"""Import path, `module:Class`, by the short name."""

TASK_IDS = {f"RATE/{path.partition(':')[2]}-v0": name for name, path in TASKS.items()}
"""Short names by Gymnasium id."""
