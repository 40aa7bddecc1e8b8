"""Progress on terminals and in log files."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trainers.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def log(times: list[float], note: str = "loss 1") -> list[str]:
    """Returns the lines of the log of a task whose parts are done at the given times."""
    text, clock = io.StringIO(), Clock()
    with Meter(Console(file=text, width=60), clock=clock) as meter:
        meter.show("training", 0, len(times))
        for done, clock.now in enumerate(times, start=1):
            meter.show("training", done, len(times), note)
    return text.getvalue().splitlines()


def test_a_log_has_a_first_line_and_one_after_each_tenth() -> None:
    lines = log([0.2 * step for step in range(1, 1001)])
    assert lines[0] == "training  0/1,000  0%"
    assert lines[1] == "training  100/1,000  10%  0:03:00 left  loss 1"
    shares = [line.split("  ")[2] for line in lines]
    assert [share for share in shares if share.endswith("0%")] == [
        f"{tenth}%" for tenth in range(0, 101, 10)
    ]
    assert lines[-1] == "training  1,000/1,000  100%  0:00:00 left  loss 1"


def test_fast_tasks_have_few_lines_and_slow_ones_an_early_line() -> None:
    assert len(log([0.001 * step for step in range(1, 1001)])) == 2
    assert len(log([1e-4] * 5)) == 2
    slow = log([5.0 * step for step in range(1, 10_001)])
    assert [line.split("  ")[1] for line in slow[:6]] == [
        f"{done}/10,000" for done in (0, 6, 12, 24, 48, 96)
    ]
    assert len(slow) < 30


def test_lines_of_a_log_are_not_wrapped_and_the_first_is_complete() -> None:
    _, *lines = log([30.0, 60.0], note="x" * 100)
    assert [line.split("  ")[:4] for line in lines] == [
        ["training", "1/2", "50%", "0:00:30 left"],
        ["training", "2/2", "100%", "0:00:00 left"],
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal_drops_the_least_important_parts(width: int) -> None:
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, force_terminal=True, width=width, color_system=None)
    with Meter(console, clock=clock) as meter:
        how = {"name": "a-run-with-a-very-long-name-1"}
        meter.show("training", 0, 4000, **how)
        clock.now = 3600.0
        meter.show("training", 1000, 4000, "loss 0.1234  last step 0.5  N 3  12.5 steps/s", **how)
    last = text.getvalue().replace("\r", "\n").splitlines()
    line = next(line for line in reversed(last) if "a-run" in line)
    assert "1,000/4,000  25%  3:00:00 left" in line
    assert ("12.5 steps/s" in line) == ("━" in line) == (width == 200)


def test_a_dumb_terminal_and_a_pipe_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    for terminal in (True, False):
        text = io.StringIO()
        with Meter(Console(file=text, force_terminal=terminal, width=60)) as meter:
            meter.show("scoring", 0.0, 1)
            meter.show("scoring", 1.0, 1)
        assert text.getvalue().splitlines()[0].strip() == "scoring  0%"
        assert "\x1b" not in text.getvalue()
        assert "scoring  100%" in text.getvalue()


def test_parallel_tasks_have_names_and_phases() -> None:
    text = io.StringIO()
    with Meter(Console(file=text, width=60)) as meter:
        meter.show("collecting", 0, 10, name="one")
        meter.show("training", 0, 10, name="two")
        meter.show("training", 0, 10, name="one")
        meter.show("training", 10, 10, name="two")
    lines = [line.split("  ")[0] for line in text.getvalue().splitlines()]
    assert lines == ["one collecting", "two training", "one training", "two training"]


def test_tasks_of_unknown_length_are_counted() -> None:
    text, clock = io.StringIO(), Clock()
    with Meter(Console(file=text, width=60), clock=clock) as meter:
        for done in range(100):
            clock.now = float(done)
            meter.show("packing", done, None)
    lines = text.getvalue().splitlines()
    assert lines == ["packing  0", "packing  30", "packing  60"]


def test_progress_can_be_disabled() -> None:
    text = io.StringIO()
    with Meter(Console(file=text, force_terminal=True), shown=False) as meter:
        meter.show("training", 1, 2)
        meter.say("model")
    assert text.getvalue() == ""
