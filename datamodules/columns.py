"""A store's rows, in files or on a device, and how a batch is gathered from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.episodes import Array
from datamodules.store import Store
from datamodules.store_files import OBSERVATIONS
from rate.batch import Batch, Observations

_PIECE = 64 * 2**20  # bytes that are read from a file at once, on their way to a device


@dataclass(frozen=True)
class Windows:
    """Which steps of a store a batch is; arrays `(B,)` int64, where nothing else is said.

    Attributes:
        first_rows: The row of the first step of each window's episode.
        starts: The step of its episode that a window begins with.
        stops: The step of its episode before which the window's real steps end, at most `size`
            after the start; what follows is padding.
        lengths: Steps of its episode.
        terminated: bool, whether the environment ended its episode.
        truncated: bool, whether its episode was cut.
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
        """Where all their steps are: arrays, or on a device tensors that are computed there."""
        numbers: Any = (self.first_rows, self.starts, self.stops, self.lengths)
        flags: Any = (self.terminated, self.truncated)
        earlier = self.frame_stack - 1
        seen: Any = np.arange(-earlier, self.size)
        minimum: Any = np.minimum
        where: Any = np.where
        if device is not None:
            # In one piece.
            *numbers, terminated, truncated = _on(
                device, torch.from_numpy(np.stack((*numbers, *flags)))
            )
            flags = (terminated.bool(), truncated.bool())
            seen = torch.arange(-earlier, self.size, device=device)
            minimum, where = torch.minimum, torch.where
        steps = seen[earlier:]
        first_rows, starts, stops, lengths = (number[:, None] for number in numbers)
        last = stops - 1
        left = last - starts
        mask = steps <= left  # (B, T)
        timesteps = where(mask, starts + steps, 0)
        # Padding reads the last real row, whose content is then zeroed.
        rows = (first_rows + starts) + minimum(steps, left)
        padding = ~mask if (self.stops - self.starts).min() < self.size else None
        frames, hidden = rows, padding
        if earlier:
            # A window's frames begin before its steps, by as many as the first looks back.
            seen = starts + seen
            within = minimum(seen.clip(0), last)
            frames, hidden = first_rows + within, seen != within  # (B, k - 1 + T)
        is_end = mask & (starts + steps == lengths - 1)
        terminated, truncated = (is_end & flag[:, None] for flag in flags)
        return Index(rows, padding, mask, timesteps, terminated, truncated, frames, hidden)


@dataclass(frozen=True)
class Index:
    """Which rows of a store the steps of a batch are; arrays or tensors `(B, T)`.

    Attributes:
        rows: int64, the row of each step; any row where a window is padded.
        padding: bool, where it is padded; None if no window is.
        mask: bool, where it is not.
        timesteps: int64, the step's index within its episode.
        terminated: bool, the last step of an episode that the environment ended.
        truncated: bool, the last step of an episode that was cut.
        frames: int64 `(B, k - 1 + T)`, the rows of the frames that observations are made of; for
            `k` of 1 these are `rows`.
        hidden: bool, which of the frames there are not; None if there are all.
    """

    rows: Any
    padding: Any
    mask: Any
    timesteps: Any
    terminated: Any
    truncated: Any
    frames: Any
    hidden: Any


class Columns:
    """The arrays that batches are made of, with a row for each step of a store.

    They are maps of files, or tensors on a device; batches are equal bit for bit.

    Args:
        parts: `actions`, `returns_to_go`, `rewards`, `observations` or an `observations/<key>` for
            each key of a dictionary, and the hidden state `hint`, where there is one.
        device: Where tensors are; None for files.
    """

    def __init__(self, parts: dict[str, Any], device: torch.device | None = None) -> None:
        self.parts, self.device = parts, device

    @classmethod
    def of(cls, store: Store, hint: Array | None = None) -> Columns:
        """Those of a store, in its files."""
        parts = {"hint": hint} if hint is not None else {}
        wanted = ("actions", "returns_to_go", "rewards", OBSERVATIONS)
        return cls(parts | {k: v for k, v in store.arrays.items() if k.split("/")[0] in wanted})

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(part.nbytes for part in self.parts.values())

    def to(self, device: torch.device) -> Columns:
        """Copies on a device."""
        return Columns({name: _load(part, device) for name, part in self.parts.items()}, device)

    def gather(self, windows: Windows) -> Batch:
        """The batch of some windows, where the columns are."""
        index = windows.index(self.device)
        take = _take_rows if self.device is None else _select_rows
        taken = {
            name: take(part, index.frames, index.hidden)
            if name.startswith(OBSERVATIONS)
            else take(part, index.rows, index.padding)
            for name, part in self.parts.items()
        }
        return Batch(
            observations=_observations(taken),
            actions=taken["actions"],
            returns_to_go=taken["returns_to_go"].unsqueeze(-1),
            timesteps=torch.as_tensor(index.timesteps),
            mask=torch.as_tensor(index.mask),
            rewards=taken["rewards"],
            terminated=torch.as_tensor(index.terminated),
            truncated=torch.as_tensor(index.truncated),
            hint=taken.get("hint"),
        )


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    if device.type == "cpu":
        return tensor
    # From pinned memory the device fetches it when it comes to it, and nobody waits.
    return tensor.pin_memory().to(device, non_blocking=True)


def _observations(taken: dict[str, Tensor]) -> Observations:
    if OBSERVATIONS in taken:
        return taken[OBSERVATIONS]
    prefix = f"{OBSERVATIONS}/"
    return {name.removeprefix(prefix): taken[name] for name in taken if name.startswith(prefix)}


def _take_rows(array: Array, rows: Array, padding: Array | None) -> Tensor:
    """`(B, T, ...)` rows of an `(S, ...)` array, zero where padded."""
    out: Array = np.empty((*rows.shape, *array.shape[1:]), dtype=array.dtype)
    # "clip" only spares numpy the buffer of its checked mode.
    np.take(array, rows, axis=0, out=out, mode="clip")
    if padding is not None:
        out[padding] = 0
    return torch.from_numpy(out)


def _select_rows(tensor: Tensor, rows: Tensor, padding: Tensor | None) -> Tensor:
    """The same of a tensor, on its device."""
    out = tensor.index_select(0, rows.flatten()).view(*rows.shape, *tensor.shape[1:])
    if padding is not None:
        out.masked_fill_(padding.view(*padding.shape, *(1 for _ in tensor.shape[1:])), 0)
    return out


def _load(array: Array, device: torch.device) -> Tensor:
    """A copy of an array on a device, read piece by piece."""
    rows = max(1, _PIECE * len(array) // max(1, array.nbytes))
    like = torch.from_numpy(np.empty(0, array.dtype))
    out = like.new_empty(array.shape, device=device)
    for start in range(0, len(array), rows):
        piece = np.array(array[start : start + rows])  # the file's map must not be written to
        out[start : start + rows] = torch.from_numpy(piece)
    return out
