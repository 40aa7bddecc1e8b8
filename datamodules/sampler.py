"""Sampling of training windows, in an order that depends on a seed and a counter alone."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from datamodules.eligible import eligible_episodes
from datamodules.shards import pieces
from datamodules.step_arrays import StepArrays, Windows
from datamodules.store import Store
from rate.batch import Batch

Mode = Literal["start", "random", "consecutive"]
Sampling = Literal["episodes", "steps"]
_least, _greatest = np.minimum.reduceat, np.maximum.reduceat
_PERMUTATION, _START, _EPISODE = 0, 1, 2
# A batch rarely spans more than two passes over the episodes; older orders are made again.
_CACHED_PASSES = 4


class WindowSampler:
    """Samples batches of windows; batch `i` is a pure function of `(seed, stream, i)`.

    By default episodes are sampled without replacement: each pass over the eligible episodes is a
    new permutation, and a batch may end one pass and begin the next. Random numbers are raw words
    of Philox (Salmon et al., 2011), a counter-based generator, at a counter that is computed and
    not advanced. Workers, ranks and restarts cannot change what batch `i` is.

    Args:
        store: The data.
        batch_size: The number of windows in a batch of this rank.
        window: Steps `T` of a window; `N * K` for `N` segments of context length `K`.
        seed: The seed of the order.
        mode: `start` takes the first `T` steps of an episode. `random` takes windows from all of
            it, so that every step of an episode is equally likely to be in one (see `_spans`).
            `consecutive` is that of `datamodules.consecutive.ConsecutiveSampler`.
        rank: This process among `world_size`; the ranks' batches, one after another, are the batch
            of `batch_size * world_size` that one process alone would sample.
        world_size: The number of processes.
        max_episode_length: Sample only episodes of at most so many steps (for a curriculum).
        stream: Another order from the same seed, for example for each stage of a curriculum.
        spare: Steps of a window that may lie beyond the last action of the longest episode. It is
            less than a segment where a window has several, so that the last one is not empty in
            every window. By default 1: a window may be as long as an episode's observations.
        min_return: Sample only episodes of at least this return (to imitate the good ones).
        min_length: Sample only episodes of at least so many steps.
        sampling: `episodes` samples each of them equally often; `steps` samples with replacement,
            episodes in proportion to the number of their windows, so that every step of the data is
            equally likely. For episodes much longer than `T` that is in proportion to length, as in
            Decision Transformer (Chen et al., 2021).
        frame_stack: Frames that make one observation, at most; see `batch`.
        arrays: The arrays that batches are gathered from; by default the store's files.
        held_out: The numbers of episodes that are never sampled.

    Raises:
        DatasetError: If the window is longer than any episode, or no episode is within the limits.
        ValueError: If another argument makes no sense.
    """

    def __init__(
        self,
        store: Store,
        batch_size: int,
        window: int,
        seed: int,
        mode: Mode = "start",
        rank: int = 0,
        world_size: int = 1,
        max_episode_length: int | None = None,
        stream: int = 0,
        spare: int = 1,
        min_return: float | None = None,
        min_length: int | None = None,
        sampling: Sampling = "episodes",
        frame_stack: int = 1,
        arrays: StepArrays | None = None,
        held_out: npt.NDArray[np.int64] | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode {mode!r}: choose one of {', '.join(get_args(Mode))}")
        if sampling not in ("episodes", "steps"):
            raise ValueError(f"sampling {sampling!r}: choose 'episodes' or 'steps'")
        for name, count in (
            ("batch_size", batch_size),
            ("window", window),
            ("frame_stack", frame_stack),
        ):
            if count < 1:
                raise ValueError(f"{name} ({count}) must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} processes")
        self.store, self.batch_size, self.window = store, batch_size, window
        self.arrays = arrays or StepArrays.of(store)
        self.mode, self.rank, self.world_size = mode, rank, world_size
        self._key = np.array([seed % (1 << 64), stream % (1 << 64)], dtype=np.uint64)
        limits = max_episode_length, min_return, min_length
        self._episodes = eligible_episodes(store, held_out, window, spare, *limits)
        self._first_rows = store.offsets[:-1][self._episodes]
        self._lengths = store.lengths[self._episodes]
        self._terminated, self._truncated = store.ends(self._episodes)
        self._ends = np.cumsum(self._weights()) if sampling == "steps" else None
        self.frame_stack = frame_stack
        self._passes: dict[int, npt.NDArray[np.int64]] = {}

    @property
    def num_episodes(self) -> int:
        """The number of eligible episodes: one pass samples each of them once."""
        return len(self._episodes)

    @property
    def num_steps(self) -> int:
        """The number of steps of the eligible episodes."""
        return int(self._lengths.sum())

    @property
    def num_reached(self) -> int:
        """The number of these steps that a window can hold; with `start` the first `T` of each."""
        if self.mode != "start":
            return self.num_steps
        return int(np.minimum(self._lengths, self.window).sum())

    @property
    def returns_to_go_range(self) -> tuple[float, float]:
        """The least and the greatest return-to-go of the steps that a window can hold."""
        lengths = np.minimum(self._lengths, self.window) if self.mode == "start" else self._lengths
        found = []
        for start, values in pieces(self.store.arrays["returns_to_go"]):
            first = self._first_rows - start
            inside = (first >= 0) & (first < len(values))  # no episode is in two pieces
            if not inside.any():
                continue
            # The first row of each episode, and one past its last row, where the next may start.
            borders = np.stack([first, first + lengths], axis=1)[inside].ravel()
            borders = borders[:-1] if borders[-1] == len(values) else borders
            low, high = (reduce(values, borders)[::2] for reduce in (_least, _greatest))
            found.append((low.min(), high.max()))
        return float(min(low for low, _ in found)), float(max(high for _, high in found))

    def episodes(self, index: int) -> npt.NDArray[np.int64]:
        """Returns the episode of each window of batch `index`, `(batch_size,)`."""
        chosen: npt.NDArray[np.int64] = self._episodes[self._choose(index)[0]]
        return chosen

    def batch(self, index: int) -> Batch:
        """Returns batch `index` of this rank.

        Returns:
            Windows of `window` steps. Padding after a window's last real step is zero, and False in
            the attention mask. With a `frame_stack` of `k` the observations are single frames,
            `(B, k - 1 + T, *obs)`, from `k - 1` before the first step on: each is sent to a device
            once, and `rate.batch.stack_frames` stacks them into `T` observations there. Frames
            before the first of an episode are zero.

        Raises:
            ValueError: If `index` is negative.
        """
        return self.arrays.gather(self.windows(index))

    def windows(self, index: int) -> Windows:
        """Returns the windows of batch `index`; no data are read.

        Raises:
            ValueError: If `index` is negative.
        """
        chosen, starts, stops = self._choose(index)
        return Windows(
            self._first_rows[chosen],
            starts,
            stops,
            self._lengths[chosen],
            self._terminated[chosen],
            self._truncated[chosen],
            self.window,
            self.frame_stack,
        )

    def _choose(
        self, index: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns the positions of the sampled episodes and the steps `[start, stop)` of each."""
        chosen = self._sample_episodes(index)
        return chosen, *self._spans(index, self._lengths[chosen])

    def _sample_episodes(self, index: int) -> npt.NDArray[np.int64]:
        """Returns the positions of the sampled episodes among the eligible ones, `(B,)`.

        With `episodes` they come from the concatenated passes, with `steps` from the concatenated
        windows of all episodes.
        """
        if index < 0:
            raise ValueError(f"batch {index}: the index of a batch is 0 or more")
        if self._ends is not None:
            step = (self._fractions(_EPISODE, index) * self._ends[-1]).astype(np.int64)
            drawn: npt.NDArray[np.int64] = np.searchsorted(self._ends, step, side="right")
            return drawn
        first = (index * self.world_size + self.rank) * self.batch_size
        last = first + self.batch_size - 1
        count = self.num_episodes
        if first // count == last // count:
            begin = first % count
            return self._pass(first // count)[begin : begin + self.batch_size]
        parts = []
        for number in range(first // count, last // count + 1):
            begin, end = max(first - number * count, 0), last + 1 - number * count
            parts.append(self._pass(number)[begin:end])
        return np.concatenate(parts)

    def _pass(self, number: int) -> npt.NDArray[np.int64]:
        """Returns the permutation of the eligible episodes for one pass."""
        if number not in self._passes:
            while len(self._passes) >= _CACHED_PASSES:
                del self._passes[min(self._passes)]
            words = self._words(_PERMUTATION, number, self.num_episodes)
            self._passes[number] = np.argsort(words, kind="stable")
        return self._passes[number]

    def _spans(
        self, index: int, lengths: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns the steps `[start, stop)` of its episode that each window holds, `(B,)` each.

        An episode of at most `T` steps is one window. In an episode of `L > T` steps a random
        window has any of the `L + T - 1` positions at which it covers a step, and is cut at the
        ends of the episode. Each step is then in exactly `T` windows. With whole windows alone, at
        `L - T + 1` positions, the first and the last step would be in one window each.
        """
        if self.mode == "start":
            return np.zeros_like(lengths), np.minimum(lengths, self.window)
        overhang = np.where(lengths > self.window, self.window - 1, 0)
        positions = _num_positions(lengths, self.window)
        first = (self._fractions(_START, index) * positions).astype(np.int64) - overhang
        return np.maximum(first, 0), np.minimum(first + self.window, lengths)

    def _weights(self) -> npt.NDArray[np.int64]:
        """Returns the sampling weight of each eligible episode that makes all steps equally likely.

        It is the number of its windows over the number of windows that a step is in: 1 for an
        episode of one window, `(L + T - 1) / T` for a longer one; times `T`.
        """
        if self.mode == "start":
            return np.ones_like(self._lengths)
        positions = _num_positions(self._lengths, self.window)
        return np.where(self._lengths > self.window, positions, self.window)

    def _fractions(self, purpose: int, index: int) -> npt.NDArray[np.float64]:
        """Returns `(B,)` uniform numbers in [0, 1): this rank's part of a batch."""
        begin = self.rank * self.batch_size
        words = self._words(purpose, index, begin + self.batch_size)[begin:]
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def _words(self, purpose: int, number: int, count: int, row: int = 0) -> npt.NDArray[np.uint64]:
        """Returns `(count,)` uniform 64-bit words at the counter of a pass or a batch."""
        # The lowest word of the 256-bit counter counts within one call.
        counter = np.array([0, number, purpose, row], dtype=np.uint64)
        words: npt.NDArray[np.uint64] = np.random.Philox(key=self._key, counter=counter).random_raw(
            count
        )
        return words


def _num_positions(lengths: npt.NDArray[np.int64], window: int) -> npt.NDArray[np.int64]:
    """Returns the number of positions of a random window in an episode."""
    return np.where(lengths > window, lengths + window - 1, 1)
