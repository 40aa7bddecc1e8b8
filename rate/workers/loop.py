"""The message loop of a worker process, of our own Python or another one.

This file is also sent to other Python interpreters (see `rate.envs._guest_pipe`): it imports the
standard library alone and is written in the syntax of Python 3.8.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import Any

CLOSING_TIME = 5.0  # seconds that a worker has for its clean-up when it is to end


def ignore_stop_signals() -> None:
    """Leave signals that mean the parent to the parent; SIGTERM ends a worker."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def serve(descriptor: int, receive: Any, answer: Any, close: Any) -> None:
    """Answer requests until SIGTERM, or until the parent is gone; then end, with all children.

    The process leads a session of its own, so that engines which a simulator has started can be
    ended together with it.

    Args:
        descriptor: The connection to the parent; its end tells that the parent is gone.
        receive: Returns the next request; raises EOFError or OSError where there is none any more.
        answer: Handles a request and sends what came of it.
        close: Cleans up, in `CLOSING_TIME` seconds at most.
    """
    os.set_inheritable(descriptor, False)  # an engine must not keep our end of the pipe open
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    try:
        with contextlib.suppress(_Terminated, EOFError, OSError):
            while True:
                answer(receive())
    finally:  # what else ends a process, say sys.exit(), tells its exit code to the parent
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        close()
        sys.stdout.flush()
    os.killpg(0, signal.SIGKILL)


class _Terminated(BaseException):
    """SIGTERM has come: unwinds, so that what is open is closed."""


def _leave(number: int, frame: Any) -> None:
    raise _Terminated


def _end_with_parent(descriptor: int) -> None:
    """Wait until the parent is gone; end the process, by force if a simulator does not return."""
    hang_up = select.poll()
    hang_up.register(descriptor, 0)
    hang_up.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLOSING_TIME)
    os.killpg(0, signal.SIGKILL)
