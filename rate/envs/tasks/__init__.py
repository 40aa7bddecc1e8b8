"""The memory tasks: small environments that are arrays of N rows, by the names of their records.

A task is one file here, a subclass of `rate.envs.tasks.base.Task`, and one line in `TASKS`. Its
Gymnasium id, vector environment, expert, record, presets and tests follow from these.
"""

from __future__ import annotations

TASKS: dict[str, str] = {
    "memory_length": "rate.envs.tasks.bsuite:MemoryLength",
    "memory_size": "rate.envs.tasks.bsuite:MemorySize",
}
"""Import path, `module:Class`, by the short name."""


TASK_IDS = {f"RATE/{path.partition(':')[2]}-v0": name for name, path in TASKS.items()}
"""Short names by Gymnasium id."""
