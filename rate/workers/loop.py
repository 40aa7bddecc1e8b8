"""The message loop of a worker process, under the same Python or another one.

Other Python interpreters execute this file too (see `rate.envs._guest_pipe`): it imports only the
standard library and uses the syntax of Python 3.8.
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

CLOSING_TIME = 5.0  # seconds that a worker has for its clean-up before it is killed


def ignore_stop_signals() -> None:
    """Ignore the signals that the parent handles; SIGTERM ends a worker."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def serve(descriptor: int, receive: Any, answer: Any, close: Any) -> None:
    """Answer requests until SIGTERM or the end of the parent; then kill the process group.

    The process leads a session of its own, so that processes which a simulator has started end
    with it.

    Args:
        descriptor: The connection to the parent, which hangs up when the parent ends.
        receive: Returns the next request; raises EOFError or OSError if the connection is closed.
        answer: Handles a request and sends the answer.
        close: Cleans up, in `CLOSING_TIME` seconds at most.
    """
    os.set_inheritable(descriptor, False)  # a simulator's process must not keep the pipe open
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    try:
        with contextlib.suppress(_Terminated, EOFError, OSError):
            while True:
                answer(receive())
    finally:  # other exceptions, such as SystemExit, end the process with their exit code
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        close()
        sys.stdout.flush()
    os.killpg(0, signal.SIGKILL)


class _Terminated(BaseException):
    """Raised by the handler of SIGTERM, so that the stack unwinds and resources are closed."""


def _leave(number: int, frame: Any) -> None:
    raise _Terminated


def _end_with_parent(descriptor: int) -> None:
    """Wait for the end of the parent, then end this process; after `CLOSING_TIME` by SIGKILL."""
    hang_up = select.poll()
    hang_up.register(descriptor, 0)
    hang_up.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLOSING_TIME)
    os.killpg(0, signal.SIGKILL)
