"""How long things take: warmed up, in blocks, medians of many."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_BLOCKS = 40  # as many medians are taken of, where time allows
_SHORTEST_BLOCK = 0.02  # seconds; shorter ones are lost in the clock's and the scheduler's noise
_WARM_UP = 0.2  # share of the time, after the first piece, that goes into warming up
_LEAST_WARM_UPS, _MOST_WARM_UPS = 3, 50  # the second piece still meets new memory
_LEAST_ROUNDS = 3
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Timing:
    """How long a piece of work takes.

    Attributes:
        seconds: The median over the blocks.
        spread: Distance of the quartiles, as a share of the median.
        repeats: How many pieces were timed.
    """

    seconds: float
    spread: float
    repeats: int


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Times pieces of work that follow one another; told of the end of each.

    A device is waited for at the ends of blocks alone, so that within one it can run behind.

    Args:
        device: Where the work is done.
        budget: Seconds to measure for. A few pieces are timed even where there is no time.
        least: Blocks to time at the least.
    """

    def __init__(self, device: torch.device, budget: float, least: int = 3) -> None:
        self._device, self._budget, self._least = device, budget, least
        self._pieces, self._size, self._in_block = 0, 0, 0
        self._begin = self._mark = 0.0
        self._blocks: list[float] = []

    def start(self) -> None:
        """The first piece begins."""
        self._begin = self._mark = self._now()

    def tick(self) -> bool:
        """A piece is over; returns whether that is enough."""
        self._pieces += 1
        if not self._size:
            self._warm_up()
            return False
        self._in_block += 1
        if self._in_block < self._size:
            return False
        now = self._now()
        self._blocks.append((now - self._mark) / self._size)
        self._mark, self._in_block = now, 0
        return len(self._blocks) >= self._least and now - self._begin >= self._budget

    @property
    def is_warm(self) -> bool:
        """Whether pieces count."""
        return self._size > 0

    def timing(self) -> Timing:
        return _timing(self._blocks, len(self._blocks) * self._size)

    def _warm_up(self) -> None:
        now = self._now()
        if self._pieces == 1:
            self._begin = now  # it may have compiled something; that is no measure of the others
        elapsed = now - self._begin
        if self._pieces >= _LEAST_WARM_UPS and (
            elapsed >= _WARM_UP * self._budget or self._pieces >= _MOST_WARM_UPS
        ):
            piece = max(now - self._mark, 1e-9)
            self._budget = max(self._budget - elapsed, 0.0)
            self._size = max(1, round(max(_SHORTEST_BLOCK, self._budget / _BLOCKS) / piece))
            if self._size == 1:
                self._blocks.append(piece)  # so slow that every piece counts
            self._begin = now
        self._mark = now

    def _now(self) -> float:
        synchronise(self._device)
        return time.perf_counter()


def time_calls(call: Callable[[], object], device: torch.device, budget: float) -> Timing:
    """The time of one call of a function, called again and again."""
    watch = Stopwatch(device, budget)
    watch.start()
    while True:
        call()
        if watch.tick():
            return watch.timing()


def time_in_turns(
    calls: Mapping[str, Callable[[], object]], device: torch.device, budget: float
) -> dict[str, Timing]:
    """The times of one call of several functions, called one after another, again and again.

    A machine that is slower for a while is slower for all of them, and their ratios hold.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # warms up
        call()
    begin = time.perf_counter()
    rounds = 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - begin < budget:
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            synchronise(device)
            taken[name].append(time.perf_counter() - started)
        rounds += 1
    return {name: _timing(times, rounds) for name, times in taken.items()}


def _timing(times: Sequence[float], repeats: int) -> Timing:
    median = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4)
    return Timing(median, (high - low) / median, repeats)


class PeakMemory:
    """The most memory used at once since this was made.

    Args:
        device: Of a GPU all that is allocated counts; of a CPU what the process came to hold on
            top of what it had.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        elif _reset_peak():
            self._before = _resident("VmRSS")

    @property
    def gib(self) -> float | None:
        """In GiB; None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        after = _resident("VmHWM")
        return None if self._before is None or after is None else (after - self._before) / 2**20


def _reset_peak() -> bool:
    """Give back what is free, and forget the process's peak of before; only Linux can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else what was used before would be used again, unseen
        _CLEAR.write_text("5", encoding="ascii")
    except (OSError, AttributeError):  # no such file, or another C library
        return False
    return True


def _resident(field: str) -> int | None:
    """A size from the process's status, in KiB."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
    return found[0] if found else None
