"""The episodes of a store that are eligible for training: limits and held-out episodes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from datamodules.episodes import DatasetError
from datamodules.store import Store

Numbers = npt.NDArray[np.int64]


def within_limits(
    store: Store, episodes: Numbers, min_return: float | None, min_length: int | None
) -> Numbers:
    """Returns those of the episodes that have at least this return and so many steps."""
    if min_return is not None:
        # The limit is rounded to float32 as the returns are, so that 0.96 keeps one of 0.96.
        episodes = episodes[returns_of(store, episodes) >= np.float32(min_return)]
    return episodes if min_length is None else episodes[store.lengths[episodes] >= min_length]


def returns_of(store: Store, episodes: Numbers) -> npt.NDArray[np.float32]:
    """Returns the returns of episodes, `(E,)`."""
    found: npt.NDArray[np.float32] = store.arrays["returns_to_go"][store.offsets[:-1][episodes]]
    return found


def least_return(store: Store, share: float) -> float:
    """Returns the return that the best `share` of the episodes have at least, in (0, 1].

    More of them are as good where returns are equal.
    """
    returns = np.sort(returns_of(store, np.arange(store.num_episodes)))
    return float(returns[-max(1, math.ceil(share * len(returns)))])


def eligible_episodes(
    store: Store,
    held_out: Numbers | None,
    window: int,
    spare: int,
    max_length: int | None,
    min_return: float | None,
    min_length: int | None,
) -> Numbers:
    """Returns the numbers of the eligible episodes, increasing; see `WindowSampler`.

    Raises:
        DatasetError: If the data cannot serve the window or a limit.
    """
    all_episodes: Numbers = np.arange(store.num_episodes)
    known, besides = all_episodes, ""
    if held_out is not None and len(held_out):
        known = np.setdiff1d(known, held_out, assume_unique=True)
        besides = f" (besides {len(held_out)} that are held out, see data.held_out)"
    eligible = within_limits(store, known, min_return, None)
    if not len(eligible):
        returns = returns_of(store, known)
        raise DatasetError(
            f"{store.path}: no episode has a return of at least {min_return}; those of the "
            f"{len(known)} episodes{besides} are {returns.min():g} to {returns.max():g}"
        )
    of = "" if min_return is None else f" of a return of at least {min_return}"
    lengths = store.lengths[eligible]
    eligible = within_limits(store, eligible, None, min_length)
    if not len(eligible):
        raise DatasetError(
            f"{store.path}: no episode{of} has at least {min_length} steps; the lengths{besides} "
            f"are {lengths.min()} to {lengths.max()}"
        )
    lengths = store.lengths[eligible]
    # Of all episodes: the longest window does not depend on which of them are held out.
    longest = store.lengths[within_limits(store, all_episodes, min_return, min_length)].max()
    if window - spare > longest:
        raise DatasetError(
            f"{store.path}: a window of {window} steps (segments x context length) is longer than "
            f"any episode{of}; the longest has {longest} actions, {longest + 1} observations. "
            "Use a shorter context, fewer segments, or longer episodes"
        )
    if max_length is not None:
        eligible = eligible[lengths <= max_length]
        if not len(eligible):
            raise DatasetError(
                f"{store.path}: no episode{of} has at most {max_length} steps; the shortest of "
                f"{len(lengths)}{besides} has {lengths.min()}. Begin the curriculum with more "
                "segments"
            )
    return eligible
