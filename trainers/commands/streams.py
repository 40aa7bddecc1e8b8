"""Standard streams whose errors do not end a command: closed pipes, full disks, lost terminals."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

_PLAIN = {"±": "+/-", "–": "-", "−": "-", "×": "x", "’": "'", "…": "...", "→": "->", "·": "-"}
_ERRORS = "plain"


class Stream:
    """A text stream that discards output after its first error.

    Args:
        stream: The stream to write to.

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
        with suppress(OSError, ValueError):  # Python flushes its buffer at exit: to /dev/null
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Replace standard output and error, so that a failed write does not end a command.

    Characters that the encoding lacks are replaced by ASCII. Closed streams are opened on
    `os.devnull`: otherwise a new file could get their descriptor, and the output of libraries.
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
    """Open the closed ones of the descriptors 0, 1 and 2 on `os.devnull`."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """Returns ASCII replacements of characters that an encoding lacks, and where to go on.

    Raises:
        UnicodeError: If the error is not one of encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


codecs.register_error(_ERRORS, _write_plainly)
