"""Contestants are timed in turns within a budget; the clock is not the real one."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rate.errors import UserError
from scripts.benchmarks import timing
from scripts.benchmarks.report import with_ratios
from scripts.benchmarks.rows import Row
from scripts.benchmarks.time_limit import OutOfTime, time_limit
from scripts.benchmarks.timing import Turns

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting garbage takes longer than all of these tests."""
    monkeypatch.setattr(timing, "PeakMemory", lambda _: SimpleNamespace(gib=None))


class FakeWork:
    """A step that takes a number of seconds of a fake clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.taken: list[str] = []

    def clock(self) -> float:
        return self.now

    def step(self, name: str, seconds: Callable[[float], float]) -> Callable[[], Any]:
        """A contestant; `seconds` of a step is a function of the time at which it begins."""

        def call() -> None:
            self.now += seconds(self.now)
            self.taken.append(name)

        return lambda: call

    def turns(self, budget: float, **seconds: float | Callable[[float], float]) -> Turns:
        steps = {
            name: self.step(name, given if callable(given) else lambda _, s=given: s)
            for name, given in seconds.items()
        }
        turns = Turns(steps, CPU, budget, self.clock)
        turns.run()
        return turns


def test_contestants_take_turns_in_blocks_of_about_equal_time() -> None:
    work = FakeWork()
    timings = work.turns(100.0, a=0.5, b=0.1).timings()
    blocks = ["".join(group) for _, group in itertools.groupby(work.taken)]
    assert blocks[2:] == 20 * ["aa", 10 * "b"]  # after the warm-up; a block takes a second
    assert timings["a"].repeats == 40
    assert timings["b"].seconds == pytest.approx(0.1)
    assert timings["b"].spread == pytest.approx(0)


def test_the_ratio_of_a_round_is_that_of_an_idle_machine() -> None:
    """Another process makes everything three times as slow for a part of the time."""
    work = FakeWork()

    def slow(seconds: float) -> Callable[[float], float]:
        return lambda now: seconds * (3 if 12 < now < 30 else 1)

    timings = work.turns(100.0, a=slow(0.5), b=slow(0.1)).timings()
    rows = [
        Row("step", "tmaze", "rate", variant).timed(timings[name], 8)
        for name, variant in (("a", "baseline"), ("b", "ours"))
    ]
    baseline, ours = with_ratios(rows)
    assert baseline.ratio is None
    assert ours.ratio == pytest.approx(5)
    assert (ours.ratio_low, ours.ratio_high) == (pytest.approx(5), pytest.approx(5))
    assert ours.spread > 1


def test_no_round_is_begun_that_exceeds_the_budget() -> None:
    work = FakeWork()
    timings = work.turns(200.0, a=59.0, b=7.0).timings()
    assert work.now <= 200
    assert [timing.repeats for timing in timings.values()] == [1, 1]
    assert all(timing.is_warm for timing in timings.values())


def test_without_time_for_a_round_the_last_step_of_the_warm_up_counts() -> None:
    timings = FakeWork().turns(100.0, a=59.0, b=7.0).timings()
    assert [timing.blocks for timing in timings.values()] == [(59.0,), (7.0,)]
    row = Row("step", "tmaze", "rate", note="compiled").timed(timings["b"], 8)
    assert row.note == "compiled, one step without warm-up"


def test_a_loop_of_the_caller_takes_turns_with_functions() -> None:
    work = FakeWork()
    steps = {"a": work.step("a", lambda _: 1.0), "loop": None}
    turns = Turns(steps, CPU, 20.0, work.clock)
    taken = 0
    for _ in turns.steps():
        if not taken:
            work.now += 5  # building the loop
            turns.restart()
        work.now += 2.0
        taken += 1
    assert turns.timings()["loop"].blocks == (2.0, 2.0, 2.0, 2.0)
    assert taken == 5  # with the warm-up
    assert work.taken == 5 * ["a"]
    assert work.now <= 20


def test_a_first_step_longer_than_the_budget_is_interrupted() -> None:
    """The baseline has three quarters of the budget, so that ours is still timed."""
    began = time.monotonic()
    slow, fast = (lambda: time.sleep(60)), (lambda: time.sleep(0.01))
    turns = Turns({"baseline": lambda: slow, "ours": lambda: fast}, CPU, 2.0)
    turns.run()
    assert time.monotonic() - began < 30
    assert "first step takes longer than the 1.5 s that it has" in turns.failed["baseline"]
    assert list(turns.timings()) == ["ours"]
    with pytest.raises(UserError, match="raise --budget-seconds, or lower --batch-size"):
        Turns({"ours": lambda: slow}, CPU, 1.0).run()


def test_a_time_limit_leaves_an_earlier_alarm_running() -> None:
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(OutOfTime), time_limit(0.05):
        time.sleep(30)
    with time_limit(math.inf):
        after = signal.getitimer(signal.ITIMER_REAL)[0]
    assert bool(after) == bool(before)
    assert after <= before


def test_a_baseline_that_fails_leaves_ours_to_be_timed() -> None:
    def fail() -> Callable[[], None]:
        raise RuntimeError("no kernel\nat all")

    work = FakeWork()
    turns = Turns({"a": fail, "b": work.step("b", lambda _: 1.0)}, CPU, 5.0, work.clock)
    turns.run()
    assert turns.failed == {"a": "RuntimeError: no kernel"}
    assert list(turns.timings()) == ["b"]
    with pytest.raises(RuntimeError, match="no kernel"):
        Turns({"a": fail}, CPU, 5.0).run()
