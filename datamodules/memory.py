"""How much host memory this process can still allocate."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int | None:
    """Returns the host memory in bytes that this process can still allocate.

    It is limited by the machine and by the container (control group). Memory of the page cache
    counts as free. None where the system reports neither.
    """
    found = [size for size in (_machine_memory(), _container_memory()) if size is not None]
    return min(found, default=None)


def _machine_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = dict(line.split(":") for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # not Linux
        return None


def _container_memory() -> int | None:
    """Memory that the control group (version 2) leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, taken = (
            int((folder / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        files = int(dict(line.split() for line in lines).get("inactive_file", 0))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return None
    return max(0, limit - taken + files)
