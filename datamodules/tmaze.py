"""T-Maze data: the oracle's episodes, played in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.collector import FIRST_SEED, SEEDS_EACH
from datamodules.episodes import Episode
from datamodules.writing import make_once, write_store
from rate.envs.tmaze import MINIMUM_LENGTH, TMAZE_SPEC, TMazeOracle, TMazeVector, sample_episodes
from rate.progress import OnProgress, no_progress, with_progress

_ROWS_AT_ONCE = 256


def generate_tmaze(
    directory: Path | str,
    max_length: int,
    num_episodes: int = 2000,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> Path:
    """Makes the oracle's data set of T-Mazes of 3 to `max_length` steps, unless it exists.

    Lengths are spread evenly over the whole range (the longest is always there) and each comes with
    both goals, as in the RATE paper (arXiv:2306.09459). Several processes may call this at
    once: one makes the data, the others wait for it.

    Args:
        directory: Where the data go.
        max_length: The longest episode's number of observations; `N * K` to train on `N` segments
            of context length `K`.
        num_episodes: The number of episodes.
        seed: Chooses the episodes.
        on_progress: Called with the progress, in episodes.

    Returns:
        The path of the store.

    Raises:
        ValueError: If an argument makes no sense.
        DatasetError: If a store of this name exists, but is damaged or of other data.
    """
    if max_length < MINIMUM_LENGTH or num_episodes < 1 or not 0 <= seed < 1 << 20:
        raise ValueError(
            f"T-Maze data of {num_episodes} episodes of up to {max_length} observations, seed "
            f"{seed}: there must be at least 1 episode and {MINIMUM_LENGTH} observations, and the "
            "seed must be in [0, 2^20)"
        )
    directory = Path(directory)
    # The name contains every quantity that the data depend on.
    name = f"tmaze-{max_length}-{num_episodes}-seed{seed}"
    dataset_id = f"tmaze/oracle-{max_length}-{num_episodes}-seed{seed}-v0"
    store = directory / name
    provenance: dict[str, Any] = {
        "source": f"Minari data set {dataset_id}",
        "collector": "tmaze-oracle-1",
        "max_length": max_length,
        "num_episodes": num_episodes,
        "seed": seed,
    }

    def make() -> None:
        episodes = play_oracle(max_length, num_episodes, seed)
        played = with_progress(episodes, "collecting", num_episodes, on_progress)
        write_store(played, store, TMAZE_SPEC, provenance)

    return make_once(store, provenance, make)


def play_oracle(max_length: int, num_episodes: int, seed: int) -> Iterator[Episode]:
    """Yields the oracle's episodes; each is that of `TMaze((3, max_length))` for its seed."""
    length = (MINIMUM_LENGTH, max_length)
    seeds = _balanced_seeds(max_length, num_episodes, FIRST_SEED + seed * SEEDS_EACH)
    for begin in range(0, num_episodes, _ROWS_AT_ONCE):
        rows = seeds[begin : begin + _ROWS_AT_ONCE]
        lengths, _ = sample_episodes(rows.astype(np.uint64), length)
        yield from _play(TMazeVector(len(rows), length), rows, lengths)


def _play(
    env: TMazeVector, seeds: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Iterator[Episode]:
    """Plays one batch of mazes to the end."""
    steps, count = int(lengths.max()) - 1, len(seeds)
    observations = np.zeros((steps + 1, count, 4), dtype=np.float32)
    actions = np.zeros((steps, count), dtype=np.int64)
    rewards = np.zeros((steps, count), dtype=np.float32)
    terminated: npt.NDArray[Any] = np.zeros(count, dtype=bool)
    truncated: npt.NDArray[Any] = np.zeros(count, dtype=bool)
    oracle = TMazeOracle()
    oracle.reset(count)
    observations[0], _ = env.reset(seed=seeds.tolist())
    for step in range(steps):
        actions[step] = oracle.step(observations[step])
        observations[step + 1], rewards[step], terminated, truncated, _ = env.step(actions[step])
    for row, length in enumerate(lengths.tolist()):
        yield Episode(
            observations=observations[: length - 1, row],
            actions=actions[: length - 1, row],
            rewards=rewards[: length - 1, row],
            terminated=bool(terminated[row]),
            truncated=bool(truncated[row]),
            seed=int(seeds[row]),
            last_observation=observations[length - 1, row],
        )


def _balanced_seeds(max_length: int, num_episodes: int, first: int) -> npt.NDArray[np.int64]:
    """Returns `(num_episodes,)` distinct seeds with evenly spread lengths and balanced goals.

    An episode is what its seed says, so we look through seeds from `first` on for those that say
    what we want.
    """
    pairs = (num_episodes + 1) // 2
    lengths = np.rint(np.linspace(max_length, MINIMUM_LENGTH, pairs)).astype(np.int64)
    wanted = np.sort((2 * lengths[:, None] + [0, 1]).ravel()[:num_episodes])
    # The how-manieth episode of its kind each one is.
    repeat = np.arange(num_episodes) - np.searchsorted(wanted, wanted)
    size = 1 << 16
    while True:
        seeds = first + np.arange(size)
        drawn, goals = sample_episodes(seeds.astype(np.uint64), (MINIMUM_LENGTH, max_length))
        kinds = 2 * drawn + (goals > 0)
        order = np.argsort(kinds, kind="stable")
        index = np.searchsorted(kinds[order], wanted) + repeat
        found = order[np.minimum(index, size - 1)]
        if (index < size).all() and (kinds[found] == wanted).all():
            chosen: npt.NDArray[np.int64] = seeds[found]
            return chosen
        size *= 2
