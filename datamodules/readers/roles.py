"""The roles of columns, by a table of the names that libraries give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.episodes import DatasetError
from rate.messages import first_of

# The roles of columns, and their names in the order in which they are looked for.
#   terminated, truncated: the environment, or a time limit, ended the episode here.
#   terminals: the environment ended it, and in some data a time limit as well.
#   dones: either of them ended it.
#   is_last, is_first: the last and the first step of an episode, whatever ended it.
#   episode: a number that all steps of an episode share.
#   splits, lengths: the bounds and the lengths of episodes; not one per step.
#   discount: 0 where the environment ended the episode (dm_env's).
#   step_type: 0 at the first, 2 at the last row of an episode (dm_env's).
ROLES: dict[str, tuple[str, ...]] = {
    "observations": (
        "observations",
        "observation",
        "obs",
        "states",
        "state",
        "ob",
        "images",
        "image",
        "pixels",
        "frames",
    ),
    "actions": ("actions", "action", "act", "acts"),
    "rewards": ("rewards", "reward", "rew", "rews", "r"),
    "next_observations": (
        "next_observations",
        "next_observation",
        "next_obs",
        "obs_next",
        "next_states",
        "next_state",
    ),
    "terminated": ("terminated", "terminations", "termination", "is_terminal", "terminateds"),
    "truncated": ("truncated", "truncations", "truncation", "truncateds", "timeouts", "timeout"),
    "terminals": ("terminals", "terminal"),
    "dones": ("dones", "done"),
    "is_last": ("is_last", "episode_terminals", "last"),
    "is_first": ("is_first", "episode_starts", "first"),
    "episode": (
        "episode",
        "episode_id",
        "episode_ids",
        "episode_index",
        "episode_idx",
        "traj_id",
        "traj_ids",
        "traj_idx",
        "trajectory_id",
        "trajectory_ids",
        "trajectory_index",
        "trajectory_idx",
    ),
    "splits": ("indices", "index", "episode_ends", "traj_ends", "traj_starts", "start_indices"),
    "lengths": ("lengths", "episode_lengths", "traj_lengths", "traj_lens", "path_lengths"),
    "discount": ("discount", "discounts"),
    "step_type": ("step_type", "step_types"),
}
IGNORED = "none"  # what `--map theirs=none` makes of a column
_REQUIRED = ("observations", "actions")
_SHOWN = 16


@dataclass(frozen=True)
class ColumnRoles:
    """The columns of a data set or of an episode, by role.

    Attributes:
        values: Each column, by its role; `observations` and `next_observations` may be mappings.
        names: The names in the data, by role.
        others: The names of the columns without a role.
    """

    values: dict[str, Any]
    names: dict[str, str]
    others: tuple[str, ...]

    def __contains__(self, role: str) -> bool:
        return role in self.values


def role_of(name: str) -> str | None:
    """Returns the role of a column by its name alone, ignoring case and hyphens."""
    name = name.lower().replace("-", "_")
    return next((role for role, names in ROLES.items() if name in names), None)


def read_map(text: str) -> tuple[str, str]:
    """Parses `--map theirs=ours` into a pair.

    Raises:
        ValueError: If it is no such pair, or the second part is none of the roles.
    """
    column, separator, name = text.rpartition("=")
    role = name if name in ROLES or name == IGNORED else role_of(name)
    if not separator or not column or role is None:
        raise ValueError(
            f"'{text}' is not THEIRS=OURS, the name of a column and one of "
            f"{', '.join([*ROLES, IGNORED])}"
        )
    return column, role


def find_roles(
    columns: Mapping[str, Any], mapped: Iterable[tuple[str, str]] = (), place: str = ""
) -> ColumnRoles:
    """Returns the role of each column.

    Args:
        columns: The columns by name; mappings among them are groups of columns.
        mapped: `(theirs, ours)` pairs that override the table of names. `theirs` may be the path
            of a column in groups, with slashes.
        place: Where the columns are, for messages.

    Raises:
        DatasetError: If a mapped column is not there, or there are no observations or actions.
    """
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    mapping: dict[str, dict[str, Any]] = {}
    for theirs, ours in mapped:
        mapping.setdefault(ours, {})[theirs] = _at_path(columns, theirs, place)
    for role, parts in mapping.items():
        if role == IGNORED:
            continue
        if len(parts) > 1 and role not in ("observations", "next_observations"):
            raise DatasetError(f"{place}: {' and '.join(parts)} cannot both be the {role}")
        names[role] = ", ".join(parts)
        values[role] = parts if len(parts) > 1 else next(iter(parts.values()))
    taken = {path.partition("/")[0] for parts in mapping.values() for path in parts}
    taken |= {path for parts in mapping.values() for path in parts}
    spelled = {str(key).lower().replace("-", "_"): key for key in columns if key not in taken}
    for role, known in ROLES.items():
        name = next((name for name in known if name in spelled), None)
        if role not in values and name is not None:
            names[role], values[role] = str(spelled[name]), columns[spelled[name]]
    used = {*taken, *names.values()}
    _check_required(values, columns, place)
    return ColumnRoles(values, names, tuple(str(key) for key in columns if str(key) not in used))


def listing(columns: Mapping[str, Any]) -> str:
    """Returns the names of columns, for messages."""
    return first_of(list(_paths(columns)), _SHOWN) or "nothing"


def _check_required(values: Mapping[str, Any], columns: Mapping[str, Any], place: str) -> None:
    missing = [role for role in _REQUIRED if role not in values]
    if missing:
        options = " ".join(f"--map THEIRS={role}" for role in missing)
        raise DatasetError(
            f"{place}: there are no {' and no '.join(missing)}; it has {listing(columns)}. "
            f"Say which column they are: {options}"
        )


def _at_path(columns: Mapping[str, Any], path: str, place: str) -> Any:
    if path in columns:
        return columns[path]
    found: Any = columns
    for part in path.split("/"):
        if not isinstance(found, Mapping) or part not in found:
            raise DatasetError(f"{place}: there is no column '{path}'; it has {listing(columns)}")
        found = found[part]
    return found


def _paths(columns: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in columns.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{above}{key}/")
        else:
            yield f"{above}{key}"
