"""What environments tell at the ends of episodes: the scalars of the last `info`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rate.envs._guest_messages import scalars

__all__ = ["Outcomes", "scalars"]


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
