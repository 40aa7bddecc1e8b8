"""Standard streams that a command outlives: readers leave, disks fill up, terminals close."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

_PLAIN = {"±": "+/-", "–": "-", "−": "-", "×": "x", "’": "'", "…": "...", "→": "->", "·": "-"}
_ERRORS = "plain"


class Stream:
    """A stream that takes what is written to it, and drops it from its first error on.

    Args:
        stream: Where to.

    Attributes:
        error: The first error, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.error = error
        with suppress(OSError, ValueError):  # Python writes out at its end what is left: to nobody
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Make standard output and error such that no write to them ends a command.

    What a stream's encoding has not is written in ASCII. A stream that is closed goes to nobody:
    its number must not become that of a file, which would get what libraries print.
    """
    _fill_numbers()
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, Stream):
            continue
        if stream is None:
            stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)
        setattr(sys, name, cast("TextIO", Stream(stream)))


def _fill_numbers() -> None:
    """Open what is closed of the files 0, 1 and 2."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """Stand-ins for what an encoding has not, of as many characters as people can read."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


codecs.register_error(_ERRORS, _write_plainly)
