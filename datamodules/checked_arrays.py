"""The arrays of a store, each compared with its digest before it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from datamodules.episodes import Array

LARGE_BYTES = 1 << 28  # from here on a file is compared while it is used, if the reader waits later

Check = Callable[[], None]  # raises if the file of an array was altered


@cache
def _thread(process: int) -> ThreadPoolExecutor:
    """Returns the thread of a process that compares large files, of all stores and shards."""
    return ThreadPoolExecutor(1, "digests")


class CheckedArrays(Mapping[str, Array]):
    """Arrays by name, as read-only maps of files; the first access compares the digest.

    Args:
        arrays: The arrays.
        checks: Compares the file of each array with its digest.
        background: Compare files of at least `LARGE_BYTES` in another thread. Then `wait` has to be
            called before a result is written.
    """

    def __init__(
        self, arrays: dict[str, Any], checks: dict[str, Check], background: bool = False
    ) -> None:
        self.unchecked = arrays
        self._checks, self._background = checks, background
        self._running: dict[str, Future[None]] = {}

    def __getitem__(self, name: str) -> Array:
        array: Array = self.unchecked[name]
        if name in self._checks:
            if self._background and array.nbytes >= LARGE_BYTES:
                self._running[name] = _thread(os.getpid()).submit(self._checks[name])
            else:
                self._checks[name]()
            del self._checks[name]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.unchecked)

    def __len__(self) -> int:
        return len(self.unchecked)

    def renamed(self, keep: Callable[[dict[str, Any]], dict[str, Any]]) -> CheckedArrays:
        """Returns the arrays of other names; `keep` chooses and renames the entries of a table."""
        return CheckedArrays(keep(self.unchecked), keep(self._checks), self._background)

    def check(self, wait: bool = True) -> None:
        """Raises the error of an altered file that was found in the background.

        Args:
            wait: Wait until all files that are being read have been compared.
        """
        for running in self._running.values():
            if wait or running.done():
                running.result()
        for array in self.unchecked.values():
            if not isinstance(array, np.ndarray):  # of shards, which check theirs
                array.check(wait)
