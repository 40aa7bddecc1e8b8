"""Episodes that no model is trained on, and all of their steps in windows.

An episode is held out or not by its number in the data alone: whatever the seed, the model and the
limits on what is trained on, and however many episodes are added after it. So the runs of a study
are measured on the same episodes.
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

# Apart from other uses of the hash.
_EPISODES, _WINDOWS = np.uint64(0x48454C44), np.uint64(0x57494E44)


def held_out_episodes(count: int, share: float) -> Numbers:
    """The numbers of the episodes that are held out, increasing.

    Of every `1 / share` episodes in a row one is, chosen by a hash of their numbers. That makes
    `count * share`, rounded down, spread evenly over the data: of fewer than `1 / share` episodes
    none. To add episodes to the data changes nothing for those before them.

    Args:
        count: Episodes of the data.
        share: In [0, 1).
    """
    group = np.floor(np.arange(count) * share)  # (E,)
    order = np.lexsort((_hash(np.arange(count), _EPISODES), group))  # by group, then by hash
    first = np.flatnonzero(np.diff(group[order], prepend=-1.0))
    chosen: Numbers = order[first]
    return np.sort(chosen[group[chosen] < np.floor(count * share)])


class HeldOut:
    """The steps of held-out episodes, cut into windows as they are trained on.

    With `start` windows an episode is its first `T` steps, as in training. With `random` ones it is
    cut into windows one after another, so that each of its steps is in exactly one.

    Args:
        store: The data.
        share: Of its episodes, to be held out; see `held_out_episodes`.
        window: Steps `T` of a window.
        mode: See `WindowSampler`.
        min_return: Measure on episodes of at least this return, as is trained on.
        min_length: Measure on episodes of at least so many steps.
        frame_stack: Frames that make one observation.

    Attributes:
        share: The share.
        never_drawn: The numbers of all episodes that are held out.
        episodes: The numbers of those that are measured on.
        num_windows: How many windows there are.
        num_steps: How many steps these hold.
        last_step: The number of the last step within an episode that any of them holds.
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
        self.share, self.never_drawn = share, held_out_episodes(store.num_episodes, share)
        episodes = within_limits(store, self.never_drawn, min_return, min_length)
        lengths = store.lengths[episodes]
        counts = np.ones_like(lengths) if mode == "start" else -(-lengths // window)
        owner = np.repeat(np.arange(len(episodes)), counts)  # (W,)
        starts = window * (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts))
        # In an order of their own, so that the first of them stand for all.
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
        """That of the data."""
        return self._store.spec.action_space

    @property
    def rest_return_range(self) -> tuple[float, float]:
        """The least and the greatest return of an episode that is not held out."""
        if not len(self.never_drawn):
            return self._store.return_range
        rest = np.setdiff1d(np.arange(self._store.num_episodes), self.never_drawn)
        returns = returns_of(self._store, rest)
        return float(returns.min()), float(returns.max())

    def batches(
        self, arrays: StepArrays, size: int, limit: int, rank: int = 0, world_size: int = 1
    ) -> HeldOutBatches:
        """Returns the first windows of a fixed order, in batches.

        Args:
            arrays: Where the data are.
            size: Windows in a batch, at most.
            limit: Windows in all, over all processes.
            rank: This process among `world_size`, which share the windows out.
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
