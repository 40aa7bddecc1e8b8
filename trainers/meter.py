"""Progress for people: lines that move on a terminal, a few lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

_SHARES = 10  # of the whole, after each of which a log file gets a line
_SHORT_S, _LONG_S = 1.0, 30.0  # between two lines of a log file: at least, and at first at most
_PATIENCE = 0.5  # then at most this share of the time that the phase has taken
_BAR = 20  # characters


@dataclass
class _Work:
    """Something that is being done.

    Attributes:
        phase: What.
        total: How much of it there is, if that is known.
        started: When the phase began.
        first: What was done by then, perhaps by an earlier process.
        printed: When the last line was printed.
        share: Of the whole, which the next line is for.
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
        """Seconds until all is done, at the speed of this phase."""
        if self.total is None or done <= self.first:
            return None
        return (now - self.started) / (done - self.first) * max(self.total - done, 0.0)


class Meter:
    """Shows how far work is, and how long the rest of it will take.

    A line has what is done first and what may be cut last, so that nothing is lost in a narrow
    window. What is no terminal, or a dumb one, gets a line when a phase begins and after each tenth
    of it, at most one in a second, and where the work is slow also one after half a minute, one
    minute, two, four, and so on.

    Args:
        console: Where to; standard error by default.
        shown: Whether to show anything.
        clock: Tells the time in seconds.
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
        """Whether lines move, as on a terminal."""
        return self._live is not None

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the lines as they are."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print a line of its own."""
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
        """Tell how far a phase is.

        Args:
            phase: What is being done.
            done: How much of it has been done.
            total: How much there is, if that is known. Of 1, the share alone is shown.
            note: Anything else.
            name: Whose phase, where several works go on side by side.
            amount: Writes a number of what is done.
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
            room = max(self.console.width - len(progress) - 3, 1)  # spaces, and a sign of a cut
            what = what if len(what) <= room else f"{what[: room - 1]}…"
            self._move(self._live, work, f"{what}  {progress}", done, note)
        elif begins or self._is_due(work, done, now):
            work.printed = now
            work.share = (int(_SHARES * done / total) + 1) / _SHARES if total else 1.0
            self.say("  ".join(filter(None, (what, progress, note))))

    def _is_due(self, work: _Work, done: float, now: float) -> bool:
        """Whether a log file gets another line."""
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
    """All of a line in one: what does not fit is cut at its end, where the least of it stands.

    There is a bar where it takes nothing else's room.
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
