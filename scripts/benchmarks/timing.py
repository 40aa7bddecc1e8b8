"""Times the steps of several contestants in alternating blocks, and their peak memory."""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rate.errors import UserError
from scripts.benchmarks.time_limit import time_limit

_ROUNDS = 20  # blocks of each contestant, where the budget allows
_SHORTEST_BLOCK = 0.02  # seconds; a shorter one drowns in the noise of clock and scheduler
_LONGEST_BLOCK = 1.0  # seconds; the load of a shared machine changes within a longer one
_WARM_UP = 0.1  # share of the budget that warms up all contestants
_MOST_WARM_UPS = 50
_FIRST_STEP = 0.75  # share of the time left that a contestant may take, unless it is the last
_LEAST = 1.0  # seconds that each contestant has
_CUDA_WARM_UPS = 3  # at least: the first steps compile, and capture CUDA graphs
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Step = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """The time of one step.

    Attributes:
        blocks: Seconds of a step, block by block.
        repeats: Steps that were timed.
        is_warm: False where the budget allowed no step after the first.
    """

    blocks: tuple[float, ...]
    repeats: int
    is_warm: bool = True

    @property
    def seconds(self) -> float:
        """The median over the blocks."""
        return statistics.median(self.blocks)

    @property
    def spread(self) -> float | None:
        """Interquartile range as a share of the median; None for one block."""
        if len(self.blocks) == 1:
            return None
        low, high = quartiles(self.blocks)
        return (high - low) / self.seconds


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Returns the lower and the upper quartile of two values or more."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Turns:
    """Times the steps of contestants in turns: a block of A, a block of B, a block of A, ...

    Other processes slow the contestants down alike within a round, so the ratio of the two blocks
    of a round is meaningful on a busy machine too. Contestants are built and warmed up one after
    the other. Before each round the budget is checked: blocks are shortened, down to one step each,
    and a round that would exceed the budget is not begun. If there is no time for a round after the
    warm-up, the last step of the warm-up is the only block. Building and the first step of a
    function are interrupted after three quarters of the time that is left (all of it for the last
    one), so that a slow baseline neither exceeds the budget nor uses up the time of ours.

    Args:
        contestants: By name, a function that builds the contestant and returns its step. None
            stands for a loop of the caller's, which takes a step whenever `steps` yields.
        device: Where the work is done. It is synchronised at the ends of blocks only.
        budget: Seconds from now on, building included.
        clock: Returns the time in seconds.

    Attributes:
        memory: Peak memory of building and warming up, in GiB, by name; see `PeakMemory`.
        failed: Why a contestant was dropped, by name.
        is_warm: Whether all contestants are warmed up.
    """

    def __init__(
        self,
        contestants: Mapping[str, Callable[[], Step] | None],
        device: torch.device,
        budget: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._contestants, self._device, self._clock = contestants, device, clock
        self._budget, self._began = budget, clock()
        self._end = self._began + budget
        self._steps: dict[str, Step | None] = {}
        self._seconds: dict[str, float] = {}  # of a step, in the latest block
        self._blocks: dict[str, list[float]] = {}
        self._repeats = dict.fromkeys(contestants, 0)
        self.memory: dict[str, float | None] = {}
        self.failed: dict[str, str] = {}
        self.is_warm = False

    def run(self) -> None:
        """Times contestants that are functions, all of them."""
        for _ in self.steps():
            raise TypeError("This contestant is a loop: take its steps where `steps` yields.")

    def steps(self) -> Iterator[None]:
        """Takes the steps of the functions; yields where the caller has to take one.

        Raises:
            UserError: If the last contestant that is left does not work. If an earlier one does
                not, `failed` has the reason.
            RuntimeError: The same for errors of PyTorch and CUDA.
        """
        for name, build in self._contestants.items():
            try:
                yield from self._warm_up(name, build)
            except (RuntimeError, UserError) as error:
                self.failed[name] = describe_failure(error)
                if len(self.failed) == len(self._contestants):
                    raise
            else:
                self._blocks[name] = []
        self.is_warm = True
        for number in range(_ROUNDS):
            for name, count in self._plan(_ROUNDS - number).items():
                self._blocks[name].append((yield from self._time(name, count)))
                self._repeats[name] += count

    def restart(self) -> None:
        """The caller's step begins now: what it did since `steps` yielded is not timed."""
        self._began = self._now()

    def timings(self) -> dict[str, Timing]:
        """What was measured, by name, without contestants that failed."""
        return {
            name: Timing(tuple(blocks), self._repeats[name])
            if blocks
            else Timing((self._seconds[name],), 1, is_warm=False)
            for name, blocks in self._blocks.items()
        }

    def _warm_up(self, name: str, build: Callable[[], Step] | None) -> Generator[None, None, None]:
        peak = PeakMemory(self._device)
        share = _WARM_UP * self._budget / len(self._contestants)
        least = _CUDA_WARM_UPS if self._device.type == "cuda" else 1
        count, elapsed = 0, 0.0
        with time_limit(math.inf if build is None else self._limit(name)):
            self._steps[name] = build and build()
            while count < least:
                elapsed += yield from self._time(name, 1)
                count += 1
        while count < _MOST_WARM_UPS and elapsed < share:
            elapsed += yield from self._time(name, 1)
            count += 1
        self.memory[name] = peak.gib

    def _limit(self, name: str) -> float:
        """The seconds that building a contestant and its first step may take."""
        is_last = name == list(self._contestants)[-1]
        return max((self._end - self._now()) * (1 if is_last else _FIRST_STEP), _LEAST)

    def _plan(self, rounds: int) -> dict[str, int]:
        """The number of steps in each block of the next round; empty if there is no time left.

        Args:
            rounds: Rounds that are still to come.
        """
        left = self._end - self._now()
        block = left / (rounds * len(self._blocks))
        block = min(max(block, _SHORTEST_BLOCK), _LONGEST_BLOCK)
        known = {name: self._seconds[name] for name in self._blocks}
        counts = {name: max(1, round(block / seconds)) for name, seconds in known.items()}
        if sum(counts[name] * seconds for name, seconds in known.items()) > left:
            counts = dict.fromkeys(known, 1)
        return counts if sum(known.values()) <= left else {}

    def _time(self, name: str, count: int) -> Generator[None, None, float]:
        """Takes steps of a contestant; returns the seconds of one."""
        step = self._steps[name]
        self._began = self._now()
        for _ in range(count):
            if step is None:
                yield
            else:
                step()
        # A clock may not have moved during a very short step.
        self._seconds[name] = max((self._now() - self._began) / count, 1e-9)
        return self._seconds[name]

    def _now(self) -> float:
        synchronise(self._device)
        return self._clock()


def ready(step: Step) -> Callable[[], Step]:
    """A contestant that needs no building."""
    return lambda: step


def time_calls(call: Step, device: torch.device, budget: float) -> Timing:
    """The time of one call of a function."""
    turns = Turns({"": ready(call)}, device, budget)
    turns.run()
    return turns.timings()[""]


def time_repeats(call: Step, device: torch.device, repeats: int) -> Timing:
    """The times of a number of calls, each of them a block."""
    blocks = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        synchronise(device)
        blocks.append(time.perf_counter() - began)
    return Timing(tuple(blocks), repeats)


def describe_failure(error: Exception) -> str:
    """Why a measurement was not possible, in a line."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "the device's memory is too small for it"
    if isinstance(error, RuntimeError):
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return str(error)


class PeakMemory:
    """Peak memory since this was created, on top of what was in use then.

    Args:
        device: A GPU, of which PyTorch's allocations count, or the CPU, where it is the resident
            set of the process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None  # bytes on a GPU, KiB on a CPU
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        elif _reset_peak():
            self._before = _resident("VmRSS")

    @property
    def gib(self) -> float | None:
        """In GiB; None where the operating system does not report it."""
        if self._before is None:
            return None
        if self._device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self._device) - self._before) / 2**30
        after = _resident("VmHWM")
        return None if after is None else (after - self._before) / 2**20


def _reset_peak() -> bool:
    """Gives free memory back to the system and resets the peak; False where that is impossible."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory that is reused would not raise the peak
        _CLEAR.write_text("5", encoding="ascii")
    except (OSError, AttributeError):  # no such file, or another C library
        return False
    return True


def _resident(field: str) -> int | None:
    """A field of the process's status in KiB, or None if it cannot be read."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
    return found[0] if found else None
