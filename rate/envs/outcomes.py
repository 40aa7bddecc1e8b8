"""What environments tell at the ends of episodes: the scalars of the last `info`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rate.envs._guest_messages import scalars

__all__ = ["ORACLE_ACTION", "SUCCESS", "Outcomes", "outcomes_in", "scalars"]

SUCCESS = "success"
ORACLE_ACTION = "oracle_action"  # an expert's action in the current state: no outcome
_ALSO_SUCCESS = "is_success"  # the name in Gymnasium-Robotics and Stable-Baselines3


class Outcomes:
    """The scalars that came with the ends of episodes, the last known of each row."""

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self._values: dict[str, list[Any]] = {}

    def note(self, ended: dict[int, dict[str, Any]]) -> None:
        """Keep `{row: {key: scalar}}`."""
        for row, outcomes in ended.items():
            for key, value in outcomes.items():
                self._values.setdefault(key, [None] * self._num_envs)[row] = value

    def forget(self, row: int) -> None:
        """Drop what is known of a row."""
        for values in self._values.values():
            values[row] = None

    def arrays(self, rows: slice = slice(None)) -> dict[str, npt.NDArray[Any]]:
        """`(N,)` values under each key that one of the rows knows, and under `_key` which do."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for key, all_values in self._values.items():
            values = all_values[rows]
            known = [value for value in values if value is not None]
            if known:
                truth = all(isinstance(value, bool) for value in known)
                blank, dtype = (False, np.bool_) if truth else (np.nan, np.float64)
                filled = [blank if value is None else value for value in values]
                arrays[key] = np.array(filled, dtype=dtype)
                arrays[f"_{key}"] = np.array([value is not None for value in values])
        return arrays


def outcomes_in(
    info: dict[str, Any], rows: npt.NDArray[np.bool_]
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    """Returns the numbers that a vector environment's info has for some rows.

    Args:
        info: In Gymnasium's form: an array `(N,)` by name, and under `_NAME` where it is set.
        rows: `(N,)` bool, selects `n` rows.

    Returns:
        By name, the values `(n,)` float64 and where they are set `(n,)` bool; without names that
        are set nowhere.
    """
    entries = {
        name: _numbers(values, info.get(f"_{name}"), rows)
        for name, values in info.items()
        if not name.startswith("_") and name != ORACLE_ACTION
    }
    if SUCCESS not in entries and _ALSO_SUCCESS in entries:
        entries[SUCCESS] = entries.pop(_ALSO_SUCCESS)
    return {name: found for name, found in entries.items() if found[1].any()}


def _numbers(
    values: Any, known: Any, rows: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Returns one entry of `outcomes_in`, from an entry of the info and its mask."""
    count = int(np.count_nonzero(rows))
    array, is_known = np.zeros(count), np.zeros(count, dtype=bool)
    if not isinstance(values, np.ndarray) or values.shape != rows.shape:
        return array, is_known
    if values.dtype.kind in "biuf":
        array, is_known = values[rows].astype(np.float64), ~is_known
    elif values.dtype == object:  # as Gymnasium keeps NumPy's truth values
        numbers = (bool, int, float, np.bool_, np.number)
        is_known = np.array([isinstance(value, numbers) for value in values[rows]], dtype=bool)
        array[is_known] = values[rows][is_known].astype(np.float64)
    if known is not None:
        is_known &= np.asarray(known, dtype=bool)[rows]
    return array, is_known
