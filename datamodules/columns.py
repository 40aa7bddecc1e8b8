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
class Plan:
    """Which rows of a store the steps of a batch are; arrays `(B, T)`.

    Attributes:
        rows: int64, the row of each step; any row where a window is padded.
        mask: bool, where it is not padded.
        timesteps: int64, the step's index within its episode.
        episode_end: bool, the last step of an episode.
        frames: int64 `(B, k - 1 + T)`, the rows of the frames that observations are made of; for
            `k` of 1 these are `rows`.
        shown: bool, which of the frames there are.
    """

    rows: Array
    mask: Array
    timesteps: Array
    episode_end: Array
    frames: Array
    shown: Array


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

    def gather(self, plan: Plan) -> Batch:
        """The batch of a plan, where the columns are."""
        steps, frames = self._index(plan.rows, plan.mask), self._index(plan.frames, plan.shown)
        take = _take_rows if self.device is None else _select_rows
        taken = {
            name: take(part, *(frames if name.startswith(OBSERVATIONS) else steps))
            for name, part in self.parts.items()
        }
        return Batch(
            observations=_observations(taken),
            actions=taken["actions"],
            returns_to_go=taken["returns_to_go"].unsqueeze(-1),
            timesteps=self._tensor(plan.timesteps),
            mask=self._tensor(plan.mask),
            rewards=taken["rewards"],
            episode_end=self._tensor(plan.episode_end),
            hint=taken.get("hint"),
        )

    def _index(self, rows: Array, kept: Array) -> tuple[Any, Any]:
        """Rows, and what of them is padding (None if nothing is), where the columns are."""
        padding = None if kept.all() else ~kept
        if self.device is None:
            return rows, padding
        return self._tensor(rows), None if padding is None else self._tensor(padding)

    def _tensor(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device is None or self.device.type == "cpu":
            return tensor
        # From pinned memory the device fetches it when it comes to it, and nobody waits.
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _observations(taken: dict[str, Tensor]) -> Observations:
    if OBSERVATIONS in taken:
        return taken[OBSERVATIONS]
    prefix = f"{OBSERVATIONS}/"
    return {name.removeprefix(prefix): taken[name] for name in taken if name.startswith(prefix)}


def _take_rows(array: Array, rows: Array, padding: Array | None) -> Tensor:
    """`(B, T, ...)` rows of an `(S, ...)` array, zero where padded."""
    out: Array = np.empty((*rows.shape, *array.shape[1:]), dtype=array.dtype)
    # Rows are within bounds, or padded; "clip" only spares numpy the buffer of its checked mode.
    np.take(array, rows, axis=0, out=out, mode="clip")
    if padding is not None:
        out[padding] = 0
    return torch.from_numpy(out)


def _select_rows(tensor: Tensor, rows: Tensor, padding: Tensor | None) -> Tensor:
    """The same of a tensor, on its device."""
    within = rows.clamp(0, len(tensor) - 1)  # what is outside is padded
    out = tensor.index_select(0, within.flatten()).view(*rows.shape, *tensor.shape[1:])
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
