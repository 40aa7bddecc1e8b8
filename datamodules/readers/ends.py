"""Where episodes end, and what ended them, from whichever columns say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.options import Options
from datamodules.readers.end_kinds import (
    BY_ENVIRONMENT,
    FLAGS,
    NO_END_FLAGS,
    TELLS_APART,
    Flags,
    Rows,
    is_ambiguous,
)
from datamodules.readers.roles import ColumnRoles
from datamodules.readers.values import column, flat_flags


@dataclass(frozen=True)
class EpisodeBounds:
    """The bounds of the episodes in flat columns.

    Attributes:
        ends: `(E,)`, one past the last step of each episode.
        terminated: `(E,)`, whether the environment ended it.
        truncated: `(E,)`, whether a time limit did.
        ambiguous: Whether the marks of ends may also be a time limit's; see `is_ambiguous`.
        unfinished: The number of steps after the last marked end.
        notes: Assumptions, for people.
    """

    ends: Rows
    terminated: Flags
    truncated: Flags
    ambiguous: bool = False
    unfinished: int = 0
    notes: tuple[str, ...] = ()

    @cached_property
    def starts(self) -> Rows:
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])


@dataclass
class _Marks:
    """What is known of the rows of flat columns while their ends are searched for."""

    found: ColumnRoles
    rows: int
    place: str
    flags: dict[str, Flags] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cut: bool = False  # by the time limit that a person gave

    def name(self, role: str) -> str:
        return self.found.names[role]


def find_bounds(
    found: ColumnRoles,
    rows: int,
    options: Options,
    place: str,
    breaks: Callable[[], Flags] | None = None,
    one: bool = False,
) -> EpisodeBounds:
    """Returns the bounds of the episodes in flat columns.

    Args:
        found: The columns by role.
        rows: The number of steps.
        options: The options of reading the data.
        place: The file, for messages.
        breaks: Returns `(rows - 1,)` bool, the steps whose next observation is not that of the
            next row.
        one: Whether the rows are one episode, unless a column marks several.

    Raises:
        DatasetError: If columns disagree, or nothing tells where episodes end; says what can.
    """
    marks = _Marks(found, rows, place)
    for role in FLAGS:
        if role in found:
            flags = _flags(marks, role)
            if flags.shape == (rows,):
                marks.flags[role] = flags
            elif role in TELLS_APART or role == "is_first" or flags.ndim == 0:
                raise DatasetError(
                    f"{place}: {marks.name(role)} has {flags.size} rows, but there are {rows} steps"
                )
    if "step_type" in found:
        types = _numbers(marks, "step_type")
        if len(types) == rows:
            marks.flags.setdefault("is_first", types == 0)
            marks.flags.setdefault("is_last", types == 2)
    ended = _ends(marks, options, breaks, one)
    ends = np.flatnonzero(ended).astype(np.int64) + 1
    unfinished = rows - int(ends[-1]) if len(ends) else rows
    alone = one and not len(ends)
    if unfinished and alone:
        ends = np.append(ends, rows)
    elif unfinished:
        marks.notes.append(_unfinished_note(unfinished, options))
        if options.unfinished != "drop":
            ends = np.append(ends, rows)
    if not len(ends):
        raise DatasetError(f"{place}: no episode ends; --unfinished keep makes one of the rows")
    terminated, truncated = _kinds(marks, ends)
    ambiguous = is_ambiguous(found) and not marks.cut
    return EpisodeBounds(ends, terminated, truncated, ambiguous, unfinished, tuple(marks.notes))


def _unfinished_note(steps: int, options: Options) -> str:
    if options.unfinished == "drop":
        return (
            f"the last {steps} steps are no whole episode and are left out (--unfinished keep "
            "makes a truncated one of them)"
        )
    return (
        f"the last {steps} steps are no whole episode and are kept as a truncated one, whose "
        "returns count these steps alone (--unfinished drop leaves them out)"
    )


def _ends(marks: _Marks, options: Options, breaks: Callable[[], Flags] | None, one: bool) -> Flags:
    """Returns `(rows,)` bool, True at the last step of each episode."""
    explicit = [flags for role, flags in marks.flags.items() if role in TELLS_APART]
    explicit += _by_structure(marks)
    flagged = [marks.flags[role] for role in BY_ENVIRONMENT if role in marks.flags]
    if explicit or "dones" in marks.flags:
        either: Flags = np.any([*explicit, *flagged], axis=0)
        return either
    ended: Flags = np.any(flagged, axis=0) if flagged else np.zeros(marks.rows, bool)
    if one:
        return ended
    if options.time_limit is not None:
        marks.cut = True
        return ended | _limit(ended, options.time_limit)
    if breaks is not None:
        marks.notes.append(
            "no column tells which episodes a time limit ended; an episode ends as well where the "
            f"next observation is not that of the next row ({marks.name('next_observations')})"
        )
        broken: Flags = ended | np.append(breaks(), False)
        return broken
    if flagged and _have_one_length(ended):
        if "terminals" not in marks.flags:  # `terminated` says in so many words what ended them
            return ended
        marks.notes.append(
            f"'{marks.name('terminals')}' is set at every {int(np.flatnonzero(ended)[0]) + 1} "
            "steps, and is taken as the time limit's; --time-limit STEPS says another one"
        )
        marks.flags = dict.fromkeys(marks.flags, np.zeros_like(ended)) | {"truncated": ended}
        return ended
    raise DatasetError(_no_ends_message(marks, flagged))


def _no_ends_message(marks: _Marks, flagged: list[Flags]) -> str:
    names = [marks.name(role) for role in BY_ENVIRONMENT if role in marks.flags]
    if flagged:
        return (
            f"{marks.place}: there are no timeouts (or truncated), so that '{names[0]}' alone does "
            "not tell which episodes a time limit ended. Say --time-limit STEPS, the limit of the "
            f"environment of the data, or --map {names[0]}=done if it marks every end; a column "
            "that tells the ends may also be named: --map THEIRS=truncated, =is_first or =episode"
        )
    return (
        f"{marks.place}: no column tells where episodes end. Say which one does: --map "
        "THEIRS=terminals, =truncated, =is_first or =episode; or --time-limit STEPS, if all "
        "episodes are of that length"
    )


def _have_one_length(ended: Flags) -> bool:
    """Whether there are several episodes, all of one length, and the last one ends."""
    ends = np.flatnonzero(ended) + 1
    lengths = np.diff(ends, prepend=0)
    return bool(len(ends) > 1 and ends[-1] == len(ended) and (lengths == lengths[0]).all())


def _by_structure(marks: _Marks) -> list[Flags]:
    """Returns ends by columns that mark them whatever ended the episode."""
    found, rows, made = marks.found, marks.rows, []
    if "is_first" in marks.flags:
        made.append(np.append(marks.flags["is_first"][1:], True))
    if "episode" in found:
        numbers = _numbers(marks, "episode")
        if len(numbers) == rows:
            made.append(np.append(numbers[1:] != numbers[:-1], True))
    for role in ("splits", "lengths"):
        if role in found:
            ends = _read_splits(_numbers(marks, role), role, rows)
            if ends is not None:
                made.append(_flags_at(ends, rows))
    return made


def _flags(marks: _Marks, role: str) -> Flags:
    place = f"{marks.place}: {marks.name(role)}"
    return flat_flags(column(marks.found.values[role], place), place)


def _numbers(marks: _Marks, role: str) -> Array:
    place = f"{marks.place}: {marks.name(role)}"
    values = np.asarray(column(marks.found.values[role], place)[()])
    return values.reshape(-1)


def _read_splits(numbers: Array, role: str, rows: int) -> Rows | None:
    """Returns one past the last step of each episode; None if the numbers are no such splits."""
    if not len(numbers) or len(numbers) >= rows or (numbers != np.floor(numbers)).any():
        return None
    whole = numbers.astype(np.int64)
    if role == "lengths":
        whole = np.cumsum(whole)
        return whole if whole[-1] == rows and (np.diff(whole, prepend=0) > 0).all() else None
    if (np.diff(whole) <= 0).any() or whole[0] < 0 or whole[-1] > rows:
        return None
    inner = whole[(whole > 0) & (whole < rows)]
    return np.append(inner, rows)


def _flags_at(ends: Rows, rows: int) -> Flags:
    flags = np.zeros(rows, bool)
    flags[ends - 1] = True
    return flags


def _limit(ended: Flags, limit: int) -> Flags:
    """Returns the ends by a time limit, counted from every other end."""
    flags = np.zeros_like(ended)
    for first, last in pairwise([0, *(np.flatnonzero(ended) + 1), len(ended)]):
        flags[first + limit - 1 : last : limit] = True
    return flags


def _kinds(marks: _Marks, ends: Rows) -> tuple[Flags, Flags]:
    """Returns whether the data mark the end of each episode as terminated, and as truncated."""
    last, episodes = ends - 1, len(ends)
    terminated = np.zeros(episodes, bool)
    is_marked = False
    for role in BY_ENVIRONMENT:
        if role in marks.flags:
            flags = marks.flags[role][last]
        elif role in marks.found:
            flags = _flags(marks, role)
            if len(flags) != episodes:  # one for each step or each episode
                raise DatasetError(
                    f"{marks.place}: {marks.name(role)} has {len(flags)} rows, but there are "
                    f"{marks.rows} steps in {episodes} episodes"
                )
        else:
            continue
        is_marked = True
        if role == "dones" and "truncated" in marks.flags:
            flags = flags & ~marks.flags["truncated"][last]
        terminated |= flags
    if "discount" in marks.found and not is_marked:
        discount = _numbers(marks, "discount")
        if len(discount) == marks.rows:
            terminated, is_marked = discount[last] == 0, True
    if not is_marked and "truncated" not in marks.flags:
        marks.notes.append(NO_END_FLAGS)
    truncated = np.zeros(episodes, bool)
    if "truncated" in marks.flags:
        truncated = marks.flags["truncated"][last]
    return terminated, truncated
