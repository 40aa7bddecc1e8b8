"""Errors that a user can correct."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST_LETTERS = 600  # of another library's message, which may quote a whole file


class UserError(ValueError):
    """An error outside the code; the message names it, its place and what to do."""


class ConfigError(UserError):
    """A setting that cannot work."""


class WeightsError(UserError):
    """A folder that does not hold a model this version can load."""


def shortened(error: BaseException) -> str:
    """Returns the class and the message of an error, cut off if it is long."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} [...]"


@contextmanager
def parsing(kind: type[UserError], place: Path | str, problem: str) -> Iterator[None]:
    """Turns whatever a block that reads a file raises into an error that names the file.

    The classes of errors that damaged files cause in the libraries that read them are not
    enumerated. Errors of class `kind`, and of missing permission, are not changed.

    Args:
        kind: The class of the error to raise.
        place: The file, and the place in it if known.
        problem: What is wrong with it, and what to do.
    """
    try:
        yield
    except (kind, PermissionError):
        raise
    except Exception as error:
        raise kind(f"{place} {problem} ({shortened(error)})") from error
