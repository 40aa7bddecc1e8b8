"""Interrupts work that takes longer than its time limit."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rate.errors import UserError


class OutOfTime(UserError):
    """Work took longer than its time limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupts the block after a number of seconds, by the alarm signal.

    A call of compiled code is interrupted when it returns. There is no limit for infinite seconds,
    outside of the main thread, or without alarm signals (Windows). An alarm that was set before
    goes on afterwards.

    Raises:
        OutOfTime: If the block takes longer.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not math.isfinite(seconds) or not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(
            f"its first step takes longer than the {seconds:.3g} s that it has; raise "
            "--budget-seconds, or lower --batch-size"
        )

    handler, began = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    before, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        left = before and max(before - (time.monotonic() - began), 1e-3)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left)
