"""Our own store as a source, for checks and for conversions to other formats."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.episodes import DatasetError, Episode
from datamodules.shards import SHARDS
from datamodules.source import OnBad, Source, raise_error
from datamodules.store import Store
from datamodules.store_files import FORMAT, MANIFEST, returns_to_go
from rate.files import load_json


def is_store(path: Path) -> bool:
    """Whether a path is a store's folder."""
    try:
        manifest = load_json(path / MANIFEST)
    except OSError:
        return False
    except ValueError:
        return True  # damaged: opening it says how
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def open_store(path: Path) -> Source:
    """Opens a store as a source; every file is compared with its checksum.

    Raises:
        DatasetError: If one is missing, truncated or changed.
    """
    store = Store.open(path, verify=True)
    own = [entry["file"] for entry in store.manifest["arrays"].values() if "file" in entry]
    shards = [f"{entry['folder']}/{MANIFEST}" for entry in store.manifest.get(SHARDS, ())]
    return Source(
        format="store",
        path=path,
        files=(path / MANIFEST, *(path / name for name in (*own, *shards))),
        spec=store.spec,
        read=partial(read_store, store),
        num_episodes=store.num_episodes,
        num_steps=store.num_steps,
    )


def read_store(store: Store, start: int = 0, on_bad: OnBad = raise_error) -> Iterator[Episode]:
    """Yields the episodes of a store, as copies.

    Args:
        store: The store.
        start: The number of the first to read.
        on_bad: Called with the error of each episode whose returns-to-go are not the sums of its
            rewards.
    """
    for number in range(start, store.num_episodes):
        episode = store.episode(number)
        rows = slice(store.offsets[number], store.offsets[number + 1])
        stored, expected = store.arrays["returns_to_go"][rows], returns_to_go(episode.rewards)
        wrong = ~np.isclose(stored, expected, rtol=1e-4, atol=1e-3 * max(1, np.abs(expected).max()))
        if wrong.any():
            step = int(np.argmax(wrong))
            on_bad(
                DatasetError(
                    f"{store.path}, episode {number}: the return-to-go at step {step} is "
                    f"{stored[step]:g}, but the rewards from there on are {expected[step]:g} in all"
                )
            )
        else:
            yield episode
