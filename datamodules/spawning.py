"""Programs that start processes without an `if __name__ == "__main__":`.

Python starts a process by running the program's main module in it, as something else than
`__main__`. Without that condition the program would do there all that it does here, wait for data
that its parent is making, and start processes of its own.
"""

from __future__ import annotations

import multiprocessing
import sys

from rate.errors import UserError

UNGUARDED = 73  # exit code of a process that was about to do its parent's work


def leave_if_started_again() -> None:
    """End this process if it is only to work for its parent, and is running the main module.

    Called where work begins that starts processes, or that only one process can do.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(UNGUARDED)


def unguarded() -> UserError:
    """What is wrong with a program whose processes ended with `UNGUARDED`."""
    name = getattr(sys.modules["__main__"], "__file__", None) or "the program"
    return UserError(
        f"{name} starts worker processes, and each of them runs it once more. Put what it does "
        'below a line `if __name__ == "__main__":`, or have one worker (data.workers=1).'
    )
