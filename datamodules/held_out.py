"""Held-out episodes, for a validation loss: never trained on, and cut into windows whole.

Whether an episode is held out depends on its number in the data alone, not on the seed, the model,
the limits on training episodes, or episodes that are added after it. All runs of a study are
therefore evaluated on the same episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt

from datamodules.eligible import Numbers, returns_of, within_limits
from datamodules.step_arrays import StepArrays, Windows
from rate.batch import Batch
from rate.hashing import splitmix64

if TYPE_CHECKING:
    from datamodules.sampler import Mode
    from datamodules.store import Store

# Keys that separate these uses of the hash from others.
_EPISODES, _WINDOWS = np.uint64(0x48454C44), np.uint64(0x57494E44)


def held_out_episodes(count: int, share: float) -> Numbers:
    """Returns the numbers of the held-out episodes, increasing.

    Of every `1 / share` consecutive episodes one is held out, chosen by a hash of their numbers.
    These are `count * share` episodes, rounded down, spread evenly over the data: none of fewer
    than `1 / share` episodes. Episodes that are added later do not change the earlier choice.

    Args:
        count: The number of episodes.
        share: The share to hold out, in [0, 1).
    """
    group = np.floor(np.arange(count) * share)  # (E,)
    order = np.lexsort((_hash(np.arange(count), _EPISODES), group))  # by group, then by hash
    first = np.flatnonzero(np.diff(group[order], prepend=-1.0))
    chosen: Numbers = order[first]
    return np.sort(chosen[group[chosen] < np.floor(count * share)])


class HeldOut:
    """The steps of held-out episodes, in windows like those of training.

    With `start` an episode gives one window of its first `T` steps, as in training. Otherwise it
    is cut into consecutive windows, so that each of its steps is in exactly one.

    Args:
        store: The data.
        share: The share of its episodes to hold out; see `held_out_episodes`.
        window: Steps `T` of a window.
        mode: See `WindowSampler`.
        min_return: Evaluate on episodes of at least this return, as in training.
        min_length: Evaluate on episodes of at least so many steps, as in training.
        frame_stack: Frames that make one observation.

    Attributes:
        share: The share.
        excluded: The numbers of all episodes that are excluded from training.
        episodes: The numbers of those that are evaluated.
        num_windows: The number of windows.
        num_steps: The number of their steps.
        last_step: The greatest timestep in any window.
    """

    def __init__(
        self,
        store: Store,
        share: float,
        window: int,
        mode: Mode = "start",
        min_return: float | None = None,
        min_length: int | None = None,
        frame_stack: int = 1,
    ) -> None:
        self.share, self.excluded = share, held_out_episodes(store.num_episodes, share)
        episodes = within_limits(store, self.excluded, min_return, min_length)
        lengths = store.lengths[episodes]
        counts = np.ones_like(lengths) if mode == "start" else -(-lengths // window)
        owner = np.repeat(np.arange(len(episodes)), counts)  # (W,)
        starts = window * (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts))
        # Shuffled by a hash, so that the first windows are representative of all.
        order = np.argsort(_hash(np.arange(len(owner)), _WINDOWS), kind="stable")
        owner, self._starts = owner[order], starts[order]
        self._episodes = episodes[owner]
        self._lengths = lengths[owner]
        self._stops = np.minimum(self._starts + window, self._lengths)
        self._store, self._window, self._frame_stack = store, window, frame_stack
        self.episodes = episodes
        self.num_windows = len(owner)
        self.num_steps = int((self._stops - self._starts).sum())
        self.last_step = int(self._stops.max(initial=1)) - 1

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """The action space of the data."""
        return self._store.spec.action_space

    @property
    def rest_return_range(self) -> tuple[float, float]:
        """The least and the greatest return of the episodes that are not held out."""
        if not len(self.excluded):
            return self._store.return_range
        rest = np.setdiff1d(np.arange(self._store.num_episodes), self.excluded)
        returns = returns_of(self._store, rest)
        return float(returns.min()), float(returns.max())

    def batches(
        self, arrays: StepArrays, size: int, limit: int, rank: int = 0, world_size: int = 1
    ) -> HeldOutBatches:
        """Returns the first windows of a fixed order, in batches.

        Args:
            arrays: The arrays to gather from.
            size: The largest number of windows in a batch.
            limit: The largest number of windows over all processes.
            rank: This process among `world_size`, between which the windows are divided.
            world_size: The number of processes.
        """
        chosen = np.arange(min(limit, self.num_windows))[rank::world_size]
        return HeldOutBatches(self, arrays, size, chosen)

    def windows(self, chosen: Numbers) -> Windows:
        episodes = self._episodes[chosen]
        terminated, truncated = self._store.ends(episodes)
        return Windows(
            self._store.offsets[:-1][episodes],
            self._starts[chosen],
            self._stops[chosen],
            self._lengths[chosen],
            terminated,
            truncated,
            self._window,
            self._frame_stack,
        )


@dataclass(frozen=True)
class HeldOutBatches:
    """Held-out windows in a fixed order; a `BatchSource` with an end.

    Attributes:
        held_out: The held-out episodes.
        arrays: Where the data are.
        size: Windows in a batch; the last may have fewer.
        chosen: `(W,)` the numbers of the windows.
    """

    held_out: HeldOut
    arrays: StepArrays
    size: int
    chosen: Numbers

    def __len__(self) -> int:
        return math.ceil(len(self.chosen) / self.size)

    def batch(self, index: int) -> Batch:
        """Returns batch `index`."""
        chosen = self.chosen[index * self.size : (index + 1) * self.size]
        return self.arrays.gather(self.held_out.windows(chosen))


def _hash(numbers: Numbers, purpose: np.uint64) -> npt.NDArray[np.uint64]:
    return splitmix64(numbers.astype(np.uint64) ^ splitmix64(np.array([purpose])))
