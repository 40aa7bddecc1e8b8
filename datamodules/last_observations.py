"""The observations after the last steps of truncated episodes, from which values are bootstrapped.

A window that holds the end of a truncated episode and has room for another step holds the
observation that follows, in the first place of its padding. The value of the last step is then
bootstrapped as that of any other: a time limit is not an end of the task (Pardo et al. 2018, "Time
Limits in Reinforcement Learning").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datamodules.device_copies import load, send
from datamodules.episodes import Array
from datamodules.store_files import LAST, OBSERVATIONS

if TYPE_CHECKING:
    from datamodules.step_arrays import Windows
    from datamodules.store import Store


class LastObservations:
    """The last observations of a store.

    Args:
        arrays: `observations`, or an `observations/<key>` for each key of a dictionary: `(E, *obs)`
            each, memory maps or tensors. Empty if the data do not have them: no window then holds
            one.
        first_rows: `(E,)` int64, the row in the store of the first step of each episode.
        device: The device of the tensors; None for memory maps.
    """

    def __init__(
        self, arrays: dict[str, Any], first_rows: Array, device: torch.device | None = None
    ) -> None:
        self.arrays, self._first_rows, self._device = arrays, first_rows, device

    @classmethod
    def of(cls, store: Store) -> LastObservations:
        """Returns the memory-mapped last observations of a store."""
        found = {k: store.arrays[k] for k in store.arrays if k.split("/")[0] == LAST}
        renamed = {f"{OBSERVATIONS}{k.removeprefix(LAST)}": v for k, v in found.items()}
        return cls(renamed, store.offsets[:-1])

    @property
    def nbytes(self) -> int:
        """The size of all arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    def to(self, device: torch.device) -> LastObservations:
        """Returns copies of the arrays on a device."""
        copies = {name: load(array, device) for name, array in self.arrays.items()}
        return LastObservations(copies, self._first_rows, device)

    def insert(self, windows: Windows, taken: dict[str, Tensor], timesteps: Tensor) -> Tensor:
        """Writes the last observations of truncated episodes, and their timesteps, into a batch.

        Args:
            windows: The windows of the batch.
            taken: The observations of the batch by name, `(B, k - 1 + T, *obs)`, among others.
            timesteps: `(B, T)`.

        Returns:
            `Batch.following`, `(B, T)` bool.
        """
        following = torch.zeros_like(timesteps, dtype=torch.bool)
        ends = windows.truncated & ~windows.terminated & (windows.stops == windows.lengths)
        places = windows.stops - windows.starts  # (B,), one past the last real step
        rows = np.flatnonzero(ends & (places < windows.size))
        if not self.arrays or not len(rows):
            return following
        episodes = np.searchsorted(self._first_rows, windows.first_rows[rows])
        parts = rows, places[rows], episodes, windows.lengths[rows]
        index = torch.from_numpy(np.stack(parts))  # (4, R)
        row, place, episode, length = index if self._device is None else send(index, self._device)
        for name, array in self.arrays.items():
            if self._device is not None:
                found = array[episode]
            else:
                found = torch.from_numpy(np.asarray(array[episodes]))  # (R, *obs)
            taken[name][row, place + windows.frame_stack - 1] = found
        timesteps[row, place] = length
        following[row, place] = True
        return following
