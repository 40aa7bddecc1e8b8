"""Requests to stop during training: deferred until the state can be saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rate.stopping import StopHandler, Stopped


class StopRequest(StopHandler):
    """A signal handler that defers signals during steps, and raises them if nothing is to be saved.

    A second Ctrl+C, unless it is an echo of the first, does not wait for the end of the step.

    Attributes:
        number: The signal that was received, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None
        self._is_deferred = self._is_saving = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        kind = self.classify(number)
        if self.number is None:
            self.number = number
        if self._is_deferred:
            urgent = kind == "again" and number == signal.SIGINT and not self._is_saving
        else:
            urgent = kind != "echo"
        if urgent:
            raise Stopped(number)

    def defer(self) -> None:
        """Defer signals from now on."""
        self._is_deferred = True
        self.install()  # Lightning has set its own handler for SIGTERM

    def release(self) -> None:
        """Raise signals immediately from now on."""
        self._is_deferred = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Context for work that may be aborted: raises deferred and new signals immediately."""
        before, self._is_deferred = self._is_deferred, False
        try:
            self.check()
            yield
        finally:
            self._is_deferred = before

    def check(self) -> None:
        """Raise the deferred signal, if there is one."""
        if self.number is not None:
            raise Stopped(self.number)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Context of saving the state, which signals do not interrupt."""
        self._is_saving = True
        try:
            yield
        finally:
            self._is_saving = False
