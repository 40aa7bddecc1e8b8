"""Simulate the shards that batches of data larger than memory touch, and what a cache saves.

    python scripts/simulate_shards.py                                  # 10^9 steps
    python scripts/simulate_shards.py --steps 1e12 --cache 2e12

Windows are drawn as `datamodules.sampler` draws them from long episodes: every step is equally
likely. A machine keeps the shards that it used last (LRU) and fetches the others whole. `uniform`
is the order of training; `blocks` is one that draws from a few shards until each of their steps was
in one window, which the sampler does not have yet.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shards = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """What is simulated; sizes in bytes.

    Attributes:
        steps: Steps of the data.
        step_bytes: Size of a step.
        shard_bytes: Size of a shard.
        cache_bytes: Shards that a machine keeps.
        windows: Windows that a machine takes in a batch.
        window_steps: Steps of a window.
        batches: Batches to simulate.
    """

    steps: float
    step_bytes: float
    shard_bytes: float
    cache_bytes: float
    windows: int
    window_steps: int
    batches: int

    @property
    def shards(self) -> int:
        return max(1, round(self.steps * self.step_bytes / self.shard_bytes))

    @property
    def cached(self) -> int:
        return max(1, int(self.cache_bytes / self.shard_bytes))


def uniform(setting: Setting, rng: np.random.Generator) -> Iterator[Shards]:
    """Yields the shards of the windows of each batch, `(windows,)`."""
    for _ in range(setting.batches):
        yield rng.integers(0, setting.shards, setting.windows)


def blocks(setting: Setting, rng: np.random.Generator, together: int = 16) -> Iterator[Shards]:
    """Yields shards as `uniform`, from `together` of them at a time."""
    per_shard = setting.shard_bytes / setting.step_bytes / setting.window_steps  # windows
    batches = max(1, round(together * per_shard / setting.windows))
    for index in range(setting.batches):
        if index % batches == 0:
            chosen = rng.choice(setting.shards, min(together, setting.shards), replace=False)
        yield rng.choice(chosen, setting.windows)


def fetched(setting: Setting, batches: Iterator[Shards]) -> float:
    """Returns how many shards a machine fetches for a batch, on average, once its cache is full."""
    kept: OrderedDict[int, None] = OrderedDict()
    missed = counted = 0
    for index, shards in enumerate(batches):
        for shard in np.unique(shards).tolist():
            is_kept = shard in kept
            kept[shard] = None
            kept.move_to_end(shard)
            if len(kept) > setting.cached:
                kept.popitem(last=False)
            missed += not is_kept and 2 * index >= setting.batches
        counted += 2 * index >= setting.batches
    return missed / max(1, counted)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    defaults = {"steps": 1e9, "step-bytes": 276, "shard": 1e9, "cache": 64e9, "second": 10.0}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=float, default=value, help=f"(default: {value:g})")
    for name, number in {"windows": 64, "window-steps": 90, "batches": 20_000}.items():
        parser.add_argument(f"--{name}", type=int, default=number, help=f"(default: {number})")
    given = parser.parse_args()
    setting = Setting(
        *(given.steps, given.step_bytes, given.shard, given.cache),
        *(given.windows, given.window_steps, given.batches),
    )
    print(f"{setting.shards:,} shards, of which a machine keeps {setting.cached:,}")
    orders: dict[str, Callable[[Setting, np.random.Generator], Iterator[Shards]]]
    orders = {"uniform": uniform, "blocks": blocks}
    for name, order in orders.items():
        count = fetched(setting, order(setting, np.random.default_rng(0)))
        rate = count * setting.shard_bytes * given.second / 1e9
        print(
            f"{name:8} {count:10.4f} shards fetched per batch, {rate:12,.1f} GB/s at "
            f"{given.second:g} batches a second"
        )


if __name__ == "__main__":
    main()
