"""What ended an episode, the environment or a time limit, by the flags in the data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datamodules.episodes import Array, DatasetError
from datamodules.readers.roles import ColumnRoles
from datamodules.readers.values import column, flat_flags

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

NO_END_FLAGS = "no column tells which episodes the environment ended; all are taken as truncated"
FLAGS = ("terminated", "terminals", "dones", "truncated", "is_last", "is_first")
BY_ENVIRONMENT = ("terminated", "terminals", "dones")
# Columns that distinguish a time limit's ends from the environment's.
TELLS_APART = ("truncated", "is_last")


def is_ambiguous(found: ColumnRoles) -> bool:
    """Whether the data may mark ends by a time limit in the same way as the environment's."""
    apart = ("terminated", *TELLS_APART)
    return ("terminals" in found or "dones" in found) and not any(role in found for role in apart)


def end_notes(marked: Flags, lengths: Rows, limit: int | None, found: ColumnRoles) -> list[str]:
    """Returns notes on the assumptions about ends that are marked ambiguously.

    Args:
        marked: `(E,)`, whether the data mark the end of each episode.
        lengths: `(E,)`, the number of steps of each episode.
        limit: The time limit of the environment in steps, where known. Episodes of this length are
            taken as truncated.
        found: The columns by role.
    """
    if not marked.any():
        return []
    name = found.names["terminals" if "terminals" in found else "dones"]
    at_limit = int((marked & (lengths == limit)).sum())
    notes = []
    if at_limit:
        notes.append(
            f"'{name}' marks the end of {at_limit} episodes after {limit} steps, the time limit of "
            "the environment; these are taken as truncated"
        )
    left = int(marked.sum()) - at_limit
    if left and "dones" in found:
        notes.append(
            f"'{name}' does not tell whether the environment or a time limit ended an episode; "
            f"{left} are taken as terminated (--time-limit STEPS tells those apart that a limit "
            "ended)"
        )
    return notes


def last_flags(found: ColumnRoles, steps: int, place: str) -> dict[str, bool]:
    """Returns the flags of the last step of an episode, by role.

    Args:
        found: The columns of one episode; there is a flag for each step or one for the episode.
        steps: Its number of steps. Columns may have one row more, of the reset or the last
            observation.
        place: The episode, for messages.

    Raises:
        DatasetError: If the columns disagree, or an end is marked before the last step.
    """
    flags_of_role = {}
    for role in FLAGS:
        if role not in found:
            continue
        name = found.names[role]
        flags = flat_flags(column(found.values[role], f"{place}: {name}"), f"{place}: {name}")
        if flags.ndim and len(flags) not in (1, steps, steps + 1):
            raise DatasetError(
                f"{place}: {name} has {len(flags)} steps, but there are {steps} actions"
            )
        if role != "is_first":
            flags_of_role[role] = (
                bool(flags) if not flags.ndim else check_ends(flags, f"{place}: {name}")
            )
    if "discount" in found and not flags_of_role.keys() & set(BY_ENVIRONMENT):
        discount = np.asarray(column(found.values["discount"], "discount")[()]).reshape(-1)
        flags_of_role["terminated"] = bool(discount[-1] == 0)
    return flags_of_role


def check_ends(flags: Array, place: str) -> bool:
    """Whether the last step of an episode is marked as its end.

    Args:
        flags: `(T,)`, one for each step.
        place: The column and the episode, for messages.

    Raises:
        DatasetError: If another step is marked too, or a flag is neither 0 nor 1.
    """
    flags = flat_flags(flags, place)
    early = np.flatnonzero(flags[:-1])
    if early.size:
        raise DatasetError(
            f"{place}: step {int(early[0])} is an end, but the episode goes on to step "
            f"{len(flags) - 1}"
        )
    return bool(flags[-1])
