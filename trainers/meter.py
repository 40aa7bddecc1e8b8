"""Progress display: live lines on a terminal, occasional lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

_SHARES = 10  # a log file gets a line after each tenth of the work
_SHORT_S, _LONG_S = 1.0, 30.0  # interval of lines in a log file: minimum, first maximum
_PATIENCE = 0.5  # later maximum intervals, as a share of the phase's time so far
_BAR = 20  # characters


@dataclass
class _Work:
    """The state of a displayed task.

    Attributes:
        phase: Name of the phase.
        total: Amount of work; None if unknown.
        started: Start time of the phase, in seconds.
        first: Amount already done at the start, for example by an earlier process.
        printed: Time of the last printed line, in seconds.
        share: Share of the work at which the next line is due.
        task: Its line on a terminal.
    """

    phase: str
    total: float | None
    started: float
    first: float
    printed: float
    share: float = 0.0
    task: TaskID | None = None

    def left(self, done: float, now: float) -> float | None:
        """Returns the estimated seconds left, at the speed of this phase; None if unknown."""
        if self.total is None or done <= self.first:
            return None
        return (now - self.started) / (done - self.first) * max(self.total - done, 0.0)


class Meter:
    """Shows the progress of work and its remaining time.

    A line starts with the progress and ends with what may be cut in a narrow window. Without a
    live terminal, a line is printed when a phase begins and after each tenth of it, at most one per
    second; slow work also gets one after half a minute, one minute, two, four, and so on.

    Args:
        console: The output; standard error by default.
        shown: Whether to show anything.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        console: Console | None = None,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True)
        self._shown, self._clock = shown, clock
        self._works: dict[str, _Work] = {}
        self._live: Progress | None = None
        if shown and self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Progress(_Line(), console=self.console)
            self._live.start()

    @property
    def moves(self) -> bool:
        """Whether lines are updated in place, as on a terminal."""
        return self._live is not None

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop updating; printed lines remain."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print a separate line."""
        if self._shown:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(
        self,
        phase: str,
        done: float,
        total: float | None,
        note: str = "",
        *,
        name: str = "",
        amount: Callable[[float], str] = "{:,.0f}".format,
    ) -> None:
        """Show the progress of a phase.

        Args:
            phase: Name of the phase.
            done: Amount done.
            total: Amount of work; None if unknown. If it is 1, only the percentage is shown.
            note: Additional text.
            name: Name of the task, if several run in parallel.
            amount: Formats an amount.
        """
        if not self._shown:
            return
        now, work = self._clock(), self._works.get(name)
        if work is None or work.phase != phase:
            task = None if work is None or not name else work.task
            work = _Work(phase, total, now, done, now, task=task)
            self._works[name] = work
            begins = True
        else:
            begins = False
        work.total = total
        what, progress = " ".join(filter(None, (name, phase))), _describe(done, total, amount)
        left = work.left(done, now)
        progress += "" if left is None else f"  {_duration(left)} left"
        if self._live is not None:
            room = max(self.console.width - len(progress) - 3, 1)  # spaces and the ellipsis
            what = what if len(what) <= room else f"{what[: room - 1]}…"
            self._move(self._live, work, f"{what}  {progress}", done, note)
        elif begins or self._is_due(work, done, now):
            work.printed = now
            work.share = (int(_SHARES * done / total) + 1) / _SHARES if total else 1.0
            self.say("  ".join(filter(None, (what, progress, note))))

    def _is_due(self, work: _Work, done: float, now: float) -> bool:
        """Whether the next line of a log file is due."""
        if work.total is not None and done >= work.total:
            return work.share <= 1.0
        passed = now - work.printed
        reached = work.total is not None and done >= work.share * work.total
        slow = max(_LONG_S, _PATIENCE * (now - work.started))
        return passed >= slow or (reached and passed >= _SHORT_S)

    def _move(self, live: Progress, work: _Work, text: str, done: float, note: str) -> None:
        has_bar = len(text) + _BAR + len(note) + 5 <= self.console.width
        how = {"completed": done, "total": work.total, "note": note, "has_bar": has_bar}
        if work.task is None:
            work.task = live.add_task(text, **how)  # type: ignore[arg-type]
        live.update(work.task, description=text, **how)  # type: ignore[arg-type]


class _Line(ProgressColumn):
    """The whole line as one column, cut at the end, where the least important part is.

    A bar is shown if there is room for it.
    """

    def render(self, task: Task) -> Text:
        parts = [task.description]
        if task.total and task.fields["has_bar"]:
            filled = round(_BAR * min(task.completed / task.total, 1.0))
            parts.append("━" * filled + "╌" * (_BAR - filled))
        parts.append(task.fields["note"])
        return Text("  ".join(filter(None, parts)), no_wrap=True, overflow="ellipsis")


def _describe(done: float, total: float | None, amount: Callable[[float], str]) -> str:
    if total is None:
        return amount(done)
    share = f"{min(done / total, 1.0) if total else 1.0:.0%}"
    return share if total == 1 else f"{amount(done)}/{amount(total)}  {share}"


def _duration(seconds: float) -> str:
    """`1:02:03`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
