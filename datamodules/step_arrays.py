"""The arrays of a store, memory-mapped or on a device, and the gathering of batches from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.device_copies import load, send
from datamodules.episodes import Array
from datamodules.last_observations import LastObservations
from datamodules.shards import ShardedArray
from datamodules.store import Store
from datamodules.store_files import OBSERVATIONS
from rate.batch import Batch, Observations


@dataclass(frozen=True)
class Windows:
    """The windows of a batch, as positions in a store. Arrays are `(B,)` int64 unless noted.

    Attributes:
        first_rows: The row in the store of the first step of each window's episode.
        starts: The step of the episode at which the window starts.
        stops: One past the last real step of the window, at most `starts + size`; the rest is
            padding.
        lengths: The number of steps of the window's episode.
        terminated: bool, whether the environment ended the episode.
        truncated: bool, whether the episode was cut off.
        size: Steps `T` of a window, padding included.
        frame_stack: Frames `k` that make one observation.
    """

    first_rows: Array
    starts: Array
    stops: Array
    lengths: Array
    terminated: Array
    truncated: Array
    size: int
    frame_stack: int = 1

    def index(self, device: torch.device | None) -> Index:
        """Returns the row index of every step: NumPy arrays, or tensors computed on `device`."""
        numbers: Any = (self.first_rows, self.starts, self.stops, self.lengths)
        flags: Any = (self.terminated, self.truncated)
        earlier = self.frame_stack - 1
        seen: Any = np.arange(-earlier, self.size)
        minimum: Any = np.minimum
        where: Any = np.where
        if device is not None:
            # One transfer for all six.
            packed = torch.from_numpy(np.stack((*numbers, *flags)))
            *numbers, terminated, truncated = send(packed, device)
            flags = (terminated.bool(), truncated.bool())
            seen = torch.arange(-earlier, self.size, device=device)
            minimum, where = torch.minimum, torch.where
        steps = seen[earlier:]
        first_rows, starts, stops, lengths = (number[:, None] for number in numbers)  # (B, 1)
        last = stops - 1
        left = last - starts
        mask = steps <= left  # (B, T)
        timesteps = where(mask, starts + steps, 0)  # (B, T)
        # Padding reads the last real row; its content is zeroed after gathering.
        rows = (first_rows + starts) + minimum(steps, left)  # (B, T)
        padding = ~mask if (self.stops - self.starts).min() < self.size else None
        frames, hidden = rows, padding
        if earlier:
            # The first step's observation needs the k - 1 frames before it.
            seen = starts + seen  # (B, k - 1 + T)
            within = minimum(seen.clip(0), last)
            frames, hidden = first_rows + within, seen != within  # (B, k - 1 + T)
        is_end = mask & (starts + steps == lengths - 1)  # (B, T)
        terminated, truncated = (is_end & flag[:, None] for flag in flags)
        return Index(rows, padding, mask, timesteps, terminated, truncated, frames, hidden)


@dataclass(frozen=True)
class Index:
    """The rows of a store that a batch gathers; arrays or tensors `(B, T)`.

    Attributes:
        rows: int64, the row of each step; an arbitrary row at padding.
        padding: bool, True at padding; None if no window is padded.
        mask: bool, the attention mask: True at real steps.
        timesteps: int64, the step's index within its episode.
        terminated: bool, True at the last step of an episode that the environment ended.
        truncated: bool, True at the last step of an episode that was cut off.
        frames: int64 `(B, k - 1 + T)`, the rows of the frames that observations are stacked from;
            with `k = 1` these are `rows`.
        hidden: bool, True at frames before the start of the episode and at padding; None if there
            are none.
    """

    rows: Any
    padding: Any
    mask: Any
    timesteps: Any
    terminated: Any
    truncated: Any
    frames: Any
    hidden: Any


class StepArrays:
    """The arrays that batches are gathered from, with one row per step of a store.

    They are memory maps of files or tensors on a device. Batches from both are equal bit for bit.

    Args:
        arrays: `actions`, `returns_to_go`, `rewards`, `observations` or an `observations/<key>` for
            each key of a dictionary, and the privileged state `privileged`, where there is one.
        device: The device of the tensors; None for memory maps.
        last: The observations after the last steps of episodes, which batches then have in
            `Batch.following`; None if nothing asks for them.
    """

    def __init__(
        self,
        arrays: dict[str, Any],
        device: torch.device | None = None,
        last: LastObservations | None = None,
    ) -> None:
        self.arrays, self.device, self.last = arrays, device, last

    @classmethod
    def of(
        cls, store: Store, privileged: Array | None = None, *, with_last: bool = False
    ) -> StepArrays:
        """Returns the memory-mapped arrays of a store.

        Args:
            store: The data.
            privileged: The privileged state of every step, if batches are to have it.
            with_last: Whether batches are to have the observations after truncated episodes.
        """
        arrays = {"privileged": privileged} if privileged is not None else {}
        wanted = ("actions", "returns_to_go", "rewards", OBSERVATIONS)
        found = {k: store.arrays[k] for k in store.arrays if k.split("/")[0] in wanted}
        return cls(arrays | found, last=LastObservations.of(store) if with_last else None)

    @property
    def nbytes(self) -> int:
        """The size of all arrays in bytes."""
        last: int = 0 if self.last is None else self.last.nbytes
        return last + sum(int(array.nbytes) for array in self.arrays.values())

    def to(self, device: torch.device) -> StepArrays:
        """Returns copies of the arrays on a device."""
        copies = {name: load(array, device) for name, array in self.arrays.items()}
        return StepArrays(copies, device, None if self.last is None else self.last.to(device))

    def gather(self, windows: Windows) -> Batch:
        """Returns the batch of some windows, on the device of the arrays."""
        index = windows.index(self.device)
        take = _take_rows if self.device is None else _select_rows
        taken = {
            name: take(array, index.frames, index.hidden)
            if name.startswith(OBSERVATIONS)
            else take(array, index.rows, index.padding)
            for name, array in self.arrays.items()
        }
        timesteps, following = torch.as_tensor(index.timesteps), None
        if self.last is not None:
            following = self.last.insert(windows, taken, timesteps)
        return Batch(
            observations=_observations(taken),
            actions=taken["actions"],
            returns_to_go=taken["returns_to_go"].unsqueeze(-1),  # (B, T, 1)
            timesteps=timesteps,
            mask=torch.as_tensor(index.mask),
            rewards=taken["rewards"],
            terminated=torch.as_tensor(index.terminated),
            truncated=torch.as_tensor(index.truncated),
            privileged=taken.get("privileged"),
            following=following,
        )


def _observations(taken: dict[str, Tensor]) -> Observations:
    if OBSERVATIONS in taken:
        return taken[OBSERVATIONS]
    prefix = f"{OBSERVATIONS}/"
    return {name.removeprefix(prefix): taken[name] for name in taken if name.startswith(prefix)}


def _take_rows(array: Array | ShardedArray, rows: Array, padding: Array | None) -> Tensor:
    """Gathers rows `(B, T)` of an `(S, ...)` array into `(B, T, ...)`, zero at padding."""
    out: Array = np.empty((*rows.shape, *array.shape[1:]), dtype=array.dtype)
    if isinstance(array, ShardedArray):
        array.take(rows, out)
    else:
        # The rows are in bounds; mode "clip" avoids the extra buffer of NumPy's checked mode.
        np.take(array, rows, axis=0, out=out, mode="clip")
    if padding is not None:
        out[padding] = 0
    return torch.from_numpy(out)


def _select_rows(tensor: Tensor, rows: Tensor, padding: Tensor | None) -> Tensor:
    """As `_take_rows`, of a tensor on its device."""
    out = tensor.index_select(0, rows.flatten()).view(*rows.shape, *tensor.shape[1:])
    if padding is not None:
        out.masked_fill_(padding.view(*padding.shape, *(1 for _ in tensor.shape[1:])), 0)
    return out
