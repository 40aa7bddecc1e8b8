"""Which episode of a vector environment an exception comes from."""

from __future__ import annotations

import re

_NOTE = "raised in the episode of seed "


def note_episode(error: Exception, seed: int | None, steps: int) -> None:
    """Add a note of the episode to an exception; it survives the way out of a worker process.

    Args:
        error: Raised by an environment.
        seed: The seed of its episode.
        steps: The number of steps of the episode before.
    """
    error.add_note(f"{_NOTE}{seed}, at step {steps} (counted from 0)")


def episode_note(error: BaseException) -> str | None:
    """Returns the note that `note_episode` added, if there is one."""
    notes: list[str] = getattr(error, "__notes__", [])
    return next((note for note in notes if note.startswith(_NOTE)), None)


def failed_seed(error: BaseException) -> int | None:
    """Returns the seed of the episode that `note_episode` noted, if it did."""
    found = re.match(rf"{_NOTE}(-?\d+),", episode_note(error) or "")
    return None if found is None else int(found[1])
