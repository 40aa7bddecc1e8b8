"""Handling of the signals that stop a process, and the message that it ends with.

Ctrl+C sends SIGINT, `kill` and most schedulers SIGTERM, a terminal that is closed SIGHUP, and SLURM
what `--signal` names, by custom SIGUSR1 or SIGUSR2. All of them stop a command in the same way.
This module is imported first: it must not import anything slow.
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
    """Raised by a signal handler. A `KeyboardInterrupt`, so that every signal is cleaned up alike.

    Attributes:
        number: The signal.
        message: What is saved, and how to continue; may be empty.
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
    """The same interrupt with a message: what is saved, and how to continue."""
    return (
        Stopped(number_of(error), message) if isinstance(error, Stopped) else type(error)(message)
    )


def number_of(error: KeyboardInterrupt) -> int:
    """The signal that caused an interrupt."""
    return error.number if isinstance(error, Stopped) else int(signal.SIGINT)


@contextmanager
def message_on_stop(advice: str) -> Iterator[None]:
    """Adds a message to an interrupt that leaves the block, unless it has one.

    Args:
        advice: Text after `Stopped by SIGTERM`: what is saved, and how to continue.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):
            raise
        message = f"Stopped by {name_of(number_of(error))}{advice}"
        raise with_message(error, message) from None


class StopHandler:
    """The handler of all stop signals; it raises `Stopped`.

    Nested handlers share the time of the first signal: a repetition within a second (an echo) is
    ignored, so that it does not interrupt the clean-up after the first.

    Attributes:
        raised: The last signal for which this has raised `Stopped`; 0 without one.
    """

    raised = 0

    def __init__(self) -> None:
        self._first_at = [0.0]  # time of the first signal, shared

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.classify(number) != "echo":
            self.raised = number
            raise Stopped(number)

    def classify(self, number: int) -> Literal["first", "echo", "again"]:
        """Classifies a signal: the first, its echo, or one that was sent again later."""
        now = time.monotonic()
        if not self._first_at[0]:
            self._first_at[0] = now
            return "first"
        return "again" if now - self._first_at[0] > _ECHO_S else "echo"

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Installs the handler in the block.

        It does nothing outside of the main thread. Signals that have another handler or are
        ignored (`nohup`) are left as they are, except SIGINT and SIGTERM.
        """
        before = self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> dict[int, Any]:
        """Installs the handler; returns the previous handlers."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        before = {number: signal.getsignal(number) for number in SIGNALS}
        free = (signal.SIG_DFL, exit_on_signal)
        for number, handler in list(before.items()):
            if isinstance(handler, StopHandler):
                self._first_at = handler._first_at
            elif number not in _ALWAYS and handler not in free:
                del before[number]
        for number in before:
            signal.signal(number, self)
        return {n: signal.SIG_DFL if handler is None else handler for n, handler in before.items()}


@contextmanager
def with_number() -> Iterator[None]:
    """Raises `Stopped` in place of the interrupt of a library that has replaced it by its own."""
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt as error:
        handler = signal.getsignal(signal.SIGTERM)
        if isinstance(handler, StopHandler) and handler.raised:
            raise Stopped(handler.raised) from error
        raise


@contextmanager
def stop_signals() -> Iterator[None]:
    """Raises `Stopped` at every stop signal in the block."""
    if isinstance(signal.getsignal(signal.SIGTERM), StopHandler):  # it is installed already
        yield
        return
    with StopHandler().installed():
        yield


def ignore_stop_signals() -> None:
    """For worker processes, which end with their parent: a terminal signals the whole group."""
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks the stop signals until the end of the block.

    In threads and processes that are started in it they stay blocked.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_on_signal(number: int, frame: FrameType | None) -> None:
    """The handler before a command has begun: prints a line and exits, without clean-up."""
    with suppress(OSError):
        os.write(2, f"Stopped by {name_of(number)}; the same command begins again.\n".encode())
    os._exit(128 + number)


@contextmanager
def exiting_on_signals() -> Iterator[None]:
    """Exits on signals during slow imports, where an interrupt may raise any kind of error."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number: own for number, own in handlers.items() if isinstance(own, StopHandler)}
    for number in ours:
        signal.signal(number, exit_on_signal)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def exit_on_signals() -> None:
    """Lets signals end this process with a line, until a command handles them."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, exit_on_signal)
