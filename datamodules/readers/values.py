"""Columns as arrays of numbers with a row for each step.

What has a shape, a type and rows, like a data set of an HDF5 file, is not read until its rows are
used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.episodes import Array, DatasetError

# Parts of an observation by their path; a single array has the empty path.
Parts = dict[str, Any]
_MOST_NUMBERS = 1 << 32  # of an episode that is a list


def column(value: Any, place: str) -> Any:
    """Returns a column of numbers: something with `shape`, `dtype` and rows that can be sliced.

    Args:
        value: An array, a number, or nested lists and tuples of them.
        place: Its name, for the message.

    Raises:
        DatasetError: If it is something else, which the message names.
    """
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if np.dtype(value.dtype).kind in "biuf":
            return np.asarray(value) if isinstance(value, np.ndarray) else value
        raise DatasetError(f"{place} holds {value.dtype}, not numbers")
    if isinstance(value, (bool, int, float)):
        return np.asarray(value)
    if not isinstance(value, (list, tuple)):
        raise DatasetError(f"{place} is no array, but of type {type(value).__name__}")
    if _count(value, {}) > _MOST_NUMBERS:
        raise DatasetError(f"{place} is a list of lists with more numbers than data have")
    try:
        made = np.asarray(value)
    except ValueError as error:  # rows of different shapes
        raise DatasetError(f"{place} has rows of unlike shapes") from error
    if made.dtype.kind not in "biuf":
        kind = type(value[0]).__name__ if value else "nothing"
        raise DatasetError(f"{place} is a list of {kind}, not of numbers")
    return made


def _count(value: Any, counted: dict[int, int]) -> int:
    """Returns the number of items of nested lists; a list that several share is visited once."""
    if not isinstance(value, (list, tuple)):
        return 1
    if id(value) not in counted:
        counted[id(value)] = sum(_count(item, counted) for item in value)
    return counted[id(value)]


def parts(value: Any, place: str) -> tuple[Parts, list[str]]:
    """Returns the columns of an observation, and the paths of parts that are not numbers.

    Args:
        value: A column, groups of columns, or a list with a dictionary for each step.
        place: Its name, for the message.

    Raises:
        DatasetError: If nothing in it is numbers.
    """
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
        value = stack_rows(value, place)
    if not isinstance(value, Mapping):
        return {"": column(value, place)}, []
    found: Parts = {}
    left: list[str] = []
    for key, item in value.items():
        try:
            inner, below = parts(item, f"{place}/{key}")
        except DatasetError:
            left.append(str(key))
            continue
        name = str(key).replace("/", ".")
        found |= {f"{name}.{path}" if path else name: array for path, array in inner.items()}
        left += [f"{name}.{path}" for path in below]
    if not found:
        raise DatasetError(f"{place} has no numbers in it; it has {', '.join(left) or 'nothing'}")
    return found, left


def stack_rows(rows: Sequence[Mapping[str, Any]], place: str) -> dict[str, Any]:
    """Returns the columns of a list with a dictionary for each step.

    Raises:
        DatasetError: If a step has other keys than the first.
    """
    keys = rows[0].keys()
    for number, row in enumerate(rows):
        if not hasattr(row, "keys") or row.keys() != keys:
            raise DatasetError(f"{place}: step {number} has other keys than step 0")
    return {str(key): [row[key] for row in rows] for key in keys}


def load(value: Any, rows: slice = slice(None)) -> Array:
    """Returns rows of a column, in memory."""
    if isinstance(value, np.ndarray):
        return value[rows]
    return np.asarray(value[rows])


def num_rows(value: Any) -> int:
    """Returns the number of rows of a column; a single number has 0."""
    return int(value.shape[0]) if value.shape else 0


def flat_flags(value: Any, place: str) -> npt.NDArray[np.bool_]:
    """Returns `(N,)` bool of a column of flags, or `()` of a single one.

    Raises:
        DatasetError: If one is neither 0 nor 1, or there are several at a step.
    """
    flags = np.asarray(value[()]) if not isinstance(value, np.ndarray) else value
    if flags.ndim > 1 and flags.size == len(flags):
        flags = flags.reshape(-1)
    if flags.ndim > 1:
        raise DatasetError(f"{place} have shape {flags.shape}, not (N,)")
    wrong = (flags != 0) & (flags != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DatasetError(f"{place} is {np.atleast_1d(flags)[row]} at row {row}, neither 0 nor 1")
    return flags.astype(bool)


def flat_numbers(array: Array, steps: int) -> Array:
    """Returns `(T, 1)` numbers as `(T,)`; booleans become numbers, all else is unchanged."""
    if array.dtype.kind == "b":
        array = array.astype(np.float32)
    return array.reshape(-1) if array.size == steps else array
