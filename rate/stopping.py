"""Signals that ask a process to stop, and what it says when it does.

Ctrl+C sends SIGINT, `kill` and most schedulers SIGTERM, a terminal that is closed SIGHUP, and SLURM
what `--signal` names, by custom SIGUSR1 or SIGUSR2. All of them stop a command in the same way.
This module is imported before anything else: keep it free of whatever is slow to load.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Literal

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows has two of them
)
_ALWAYS = (signal.SIGINT, signal.SIGTERM)
_ECHO_S = 1.0  # A terminal and a launcher may both send the same Ctrl+C.


class Stopped(KeyboardInterrupt):
    """A signal has asked to stop, and no state has been saved yet.

    A `KeyboardInterrupt`, so that what cleans up after Ctrl+C does so after every signal.

    Attributes:
        number: The signal.
        message: What is kept, and how to go on; may be empty.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(number, message)  # both, so that it can be pickled
        self.number, self.message = number, message

    def __str__(self) -> str:
        return self.message


def name_of(number: int) -> str:
    """`SIGTERM` for 15."""
    return signal.Signals(number).name


def with_message(error: KeyboardInterrupt, message: str) -> KeyboardInterrupt:
    """The same interrupt, to be raised again with what is kept and how to go on."""
    return (
        Stopped(number_of(error), message) if isinstance(error, Stopped) else type(error)(message)
    )


def number_of(error: KeyboardInterrupt) -> int:
    """The signal that an interrupt is from."""
    return error.number if isinstance(error, Stopped) else int(signal.SIGINT)


@contextmanager
def told_when_stopped(advice: str) -> Iterator[None]:
    """Say what an interrupt means here, unless it has a message already.

    Args:
        advice: What follows `Stopped by SIGTERM`: what is kept, and how to go on.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):
            raise
        message = f"Stopped by {name_of(number_of(error))}{advice}"
        raise with_message(error, message) from None


class StopHandler:
    """Handles every signal that asks to stop. This one raises `Stopped`.

    Handlers within each other share what they have heard: an echo of a signal, within a second,
    is none of its own, so that it does not disturb what the first one has begun.
    """

    def __init__(self) -> None:
        self._heard = [0.0]  # when the first signal came, shared

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.hear(number) != "echo":
            raise Stopped(number)

    def hear(self, number: int) -> Literal["first", "echo", "again"]:
        """Tell a first signal from its echo, and from one that somebody has sent once more."""
        now = time.monotonic()
        if not self._heard[0]:
            self._heard[0] = now
            return "first"
        return "again" if now - self._heard[0] > _ECHO_S else "echo"

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside, all of them alike.

        Nothing is changed outside of the main thread, or where somebody else handles a signal or
        has it ignored (`nohup`), but for SIGINT and SIGTERM.
        """
        before = self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> dict[int, Any]:
        """Handle the signals from now on; returns the handlers before."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        before = {number: signal.getsignal(number) for number in SIGNALS}
        free = (signal.SIG_DFL, leave_at_once)
        for number, handler in list(before.items()):
            if isinstance(handler, StopHandler):
                self._heard = handler._heard
            elif number not in _ALWAYS and handler not in free:
                del before[number]
        for number in before:
            signal.signal(number, self)
        return {n: signal.SIG_DFL if handler is None else handler for n, handler in before.items()}


@contextmanager
def stop_signals() -> Iterator[None]:
    """Raise `Stopped` at every signal that asks to stop, as `StopHandler` does."""
    if isinstance(signal.getsignal(signal.SIGTERM), StopHandler):  # somebody has done so before
        yield
        return
    with StopHandler().installed():
        yield


def ignore_stop_signals() -> None:
    """For worker processes, which end with their parent: what is meant for it may reach all."""
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait until the block is over.

    For threads and processes that are started in it they wait until `release_held_back`.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_held_back() -> None:
    """Let signals come to this thread."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def leave_at_once(number: int, frame: FrameType | None) -> None:
    """The handler before a command has begun: there is nothing to clean up yet."""
    with suppress(OSError):
        os.write(2, f"Stopped by {name_of(number)}; the same command begins again.\n".encode())
    os._exit(128 + number)


@contextmanager
def nothing_begun() -> Iterator[None]:
    """For slow imports in a command: an interrupt in one may come out as an error of any kind."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number: own for number, own in handlers.items() if isinstance(own, StopHandler)}
    for number in ours:
        signal.signal(number, leave_at_once)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def leave_before_beginning() -> None:
    """Have the signals end this process with a line, until a command handles them."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, leave_at_once)
