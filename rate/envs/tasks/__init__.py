"""Small environments that cannot be solved without memory, of any length.

After `import rate.envs`, `gymnasium.make("RATE/Bits-v0", length=90, num_bits=3)` makes one, and
`make_vec` with `vectorization_mode="vector_entry_point"` an array of them. `info` holds `success`
and `oracle_action`, the action of an expert that knows the whole state. `reset(options={...})`
fixes what a reset would sample. `privileged=True` is the fully observed twin.

`rate train bits --data.max_length 90 --env.num_bits 3` has the expert play data, trains and scores.
A window then holds a whole episode: K and N follow from the length, unless they are given.
"""

# A task is one file here, a subclass of `Task` in base.py, and one line in `TASKS`. Its Gymnasium
# id, vector environment, expert, record, presets and tests follow from these.

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
