"""Requests to stop while a run trains: noted until the state can be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rate.stopping import StopHandler, Stopped


class StopRequest(StopHandler):
    """Notes a signal while a step is taken, and raises it where there is nothing to save.

    A second Ctrl+C, later than an echo of the first, does not wait for the step to end.

    Attributes:
        number: The signal that has asked to stop, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None
        self._is_deferred = self._is_saving = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        heard = self.hear(number)
        if self.number is None:
            self.number = number
        if self._is_deferred:
            urgent = heard == "again" and number == signal.SIGINT and not self._is_saving
        else:
            urgent = heard != "echo"
        if urgent:
            raise Stopped(number)

    def defer(self) -> None:
        """Note signals from now on, for there is something to lose."""
        self._is_deferred = True
        self.install()  # Lightning has set its own for SIGTERM

    def release(self) -> None:
        """Raise signals from now on."""
        self._is_deferred = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise a signal inside, also one that was noted before: what is done here can be left."""
        before, self._is_deferred = self._is_deferred, False
        try:
            self.check()
            yield
        finally:
            self._is_deferred = before

    def check(self) -> None:
        """Raise the signal that has been noted, if there is one."""
        if self.number is not None:
            raise Stopped(self.number)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Let nothing end what is done inside."""
        self._is_saving = True
        try:
            yield
        finally:
            self._is_saving = False
