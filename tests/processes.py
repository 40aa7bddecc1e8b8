"""Which processes and files there are, for tests that count them."""

from __future__ import annotations

import os
import time
from pathlib import Path

# Seconds that nothing takes by far: a limit for what hangs, and no measure of speed. What is waited
# for takes seconds on an idle machine, and may take minutes on one that others use as well.
PATIENCE = 900.0


def open_files():
    return {path.name for path in Path("/proc/self/fd").glob("*")}


def children():
    own = str(os.getpid())
    return {s["Pid"] for s in processes() if s["PPid"] == own and s["State"] != "Z"}


def processes():
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        yield {**status, "State": status["State"].split()[0]}


def alive(pid):
    return any(int(status["Pid"]) == pid and status["State"] != "Z" for status in processes())


def wait_until(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
