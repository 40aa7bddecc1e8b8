"""Turns exceptions in the code of environments into one-line errors."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rate.envs.row_errors import episode_note
from rate.errors import UserError

DEBUG = "RATE_DEBUG"  # environment variable; if set, commands print tracebacks as well
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


@contextmanager
def environment_errors(name: str) -> Iterator[None]:
    """Turn an exception of an environment's `reset` or `step` into a `UserError`.

    The message names the environment, the episode, the step, the exception and where it was
    raised. The exception itself is the cause. Exceptions from elsewhere are not changed.

    Args:
        name: The environment's name.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        episode = episode_note(error)
        if episode is None:
            raise
        raise UserError(
            f"The environment {name} does not work: {type(error).__name__}: {error} "
            f"({_place(error)}), {episode}. {DEBUG}=1 shows the traceback."
        ) from error


def _place(error: Exception) -> str:
    """Returns the file and line that raised, in this process or in a worker."""
    in_worker = _FRAME.findall(str(error.__cause__))
    if in_worker:
        file, line = in_worker[-1]
        return f"{file}, line {line}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"
