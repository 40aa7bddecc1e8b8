"""The trajectory pickles of the Decision Transformer's code, in all their forms.

A file is a list with a dictionary per episode: `observations (T, D)`, `actions (T, A)` or `(T,)`,
`rewards (T,)`, `terminals (T,)`, and optionally `next_observations (T, D)`, under any of the names
in `datamodules.readers.roles`. An episode may be a list with a dictionary per step. Dictionaries
and tuples of episodes, lists of steps, and one dictionary of columns, flat or with a list of
episodes each, are read as well. No code of a file is run; see `datamodules.readers.pickles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.named import open_episodes, open_flat
from datamodules.readers.pickles import DAMAGED, load_pickle, open_maybe_compressed
from datamodules.readers.roles import role_of
from datamodules.readers.values import stack_rows
from datamodules.source import Source

_SUFFIXES = {".pkl", ".pickle", ".p", ".pck"}


def is_pickle(path: Path) -> bool:
    """Whether a path is a pickle, by its first byte or, for those of protocol 0, by its name."""
    if not path.is_file():
        return False
    if _SUFFIXES & set(path.suffixes):
        return True
    try:
        with open_maybe_compressed(path) as file:
            return file.read(1) == b"\x80"
    except DAMAGED:
        return False


def open_trajectories(path: Path, options: Options | None = None) -> Source:
    """Opens a file as a source. It is loaded as a whole.

    Args:
        path: The file.
        options: The options of reading the data.

    Raises:
        DatasetError: If the file is damaged, asks for anything but data, or has no whole episode.
    """
    return _open(path, load_pickle(path), options, "trajectories", (path,))


def open_values(path: Path, value: Any, options: Options | None = None) -> Source:
    """Opens data in memory as a source; they have the forms of a pickle's contents.

    Args:
        path: A name for them, for messages.
        value: A dictionary of columns, flat or with a list of episodes each, or a list or
            dictionary of episodes.
        options: The options of reading the data.

    Raises:
        DatasetError: If it is something else, or something has to be said; says what.
    """
    if not isinstance(value, Mapping) and (not isinstance(value, (list, tuple)) or not value):
        raise DatasetError(
            f"{path}: {type(value).__name__} is no data; give a dictionary of columns, or a list "
            "with a dictionary for each episode"
        )
    return _open(path, value, options, "arrays", ())


def _open(
    path: Path, value: Any, options: Options | None, name: str, files: tuple[Path, ...]
) -> Source:
    if isinstance(value, Mapping):
        if not any(_is_episode(item) for item in value.values()):
            columns = {str(key): item for key, item in value.items()}
            return _open_columns(name, path, files, columns, options)
        value = list(value.values())
    if value and _is_step(value[0]):
        return open_flat(name, path, files, stack_rows(value, str(path)), options)
    if value and _holds_episodes(value[0]):  # the episodes, and metadata
        value = value[0]
    return open_episodes(name, path, files, _after(value), options)


def _open_columns(
    name: str,
    path: Path,
    files: tuple[Path, ...],
    columns: Mapping[str, Any],
    options: Options | None,
) -> Source:
    """Opens a dictionary of columns that are flat, or that have a list of episodes each."""
    nested = next((value for value in columns.values() if _holds_episodes(value)), None)
    if nested is not None:
        return open_episodes(name, path, files, _after(nested), options)
    if _in_lists(columns):
        made = list(_from_lists(columns, path))
        return open_episodes(name, path, files, _after(made), options)
    return open_flat(name, path, files, columns, options)


def _after(episodes: Sequence[Any]) -> Callable[[int], Iterator[Any]]:
    return lambda start: iter(episodes[start:])


def _is_episode(item: Any) -> bool:
    """Whether this is a dictionary of columns, or a list with a dictionary for each step."""
    if isinstance(item, Mapping):
        return any(role_of(str(key)) == "actions" for key in item)
    return isinstance(item, list) and bool(item) and _is_step(item[0])


def _is_step(item: Any) -> bool:
    """Whether this is a dictionary of one step: with a single reward, or a single action."""
    if not isinstance(item, Mapping):
        return False
    single = {role_of(str(key)): _depth(value) == 0 for key, value in item.items()}
    return "actions" in single and single.get("rewards", single["actions"])


def _holds_episodes(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or not value or _is_step(value[0]):
        return False
    return _is_episode(value[0])


def _in_lists(columns: Mapping[str, Any]) -> bool:
    """Whether columns are lists with an array for each episode, and not for each step."""
    found = {role_of(key): value for key, value in columns.items()}
    column = found.get("rewards", found.get("actions"))
    wanted = 1 if "rewards" in found else 2
    return (
        isinstance(column, (list, tuple))
        and bool(column)
        and all(_depth(item) >= wanted for item in column)
        and any(len(item) > 1 for item in column)
    )


def _depth(value: Any) -> int:
    """Returns the number of axes of an array, or the nesting depth of a list's first items."""
    depth = 0
    while isinstance(value, (list, tuple)) and value:
        value, depth = value[0], depth + 1
    return depth + len(getattr(value, "shape", ()))


def _from_lists(columns: Mapping[str, Sequence[Any]], path: Path) -> Iterator[dict[str, Any]]:
    """Yields the episodes of columns that are lists of them."""
    lists = {key: value for key, value in columns.items() if isinstance(value, (list, tuple))}
    lengths = {key: len(value) for key, value in lists.items() if role_of(key) is not None}
    if len(set(lengths.values())) > 1:
        raise DatasetError(f"{path}: the columns have unlike numbers of episodes: {lengths}")
    for number in range(next(iter(lengths.values()))):
        yield {key: value[number] for key, value in lists.items() if number < len(value)}
