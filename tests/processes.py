"""Which processes and files there are, for tests that count them."""

from __future__ import annotations

import os
import time
from pathlib import Path


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


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
