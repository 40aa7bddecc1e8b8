"""The store: every trajectory of a data set in a few flat arrays, memory-mapped.

A store is a directory with one `.npy` file of `(sum of T, ...)` rows per quantity, the offsets of
the episodes in them, and `manifest.json`. `datamodules.writing.write_store` writes one.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from datamodules.checked_arrays import CheckedArrays
from datamodules.disk_errors import explain_read_errors
from datamodules.episodes import Array, DatasetError, Episode, observation_spaces
from datamodules.moments import Moments
from datamodules.shards import pieces
from datamodules.store_files import (
    LARGE_SEEDS,
    LAST,
    MANIFEST,
    OBSERVATIONS,
    UNKNOWN_SEED,
)
from datamodules.store_manifest import check_lengths, check_manifest, open_entries, read_manifest
from rate.advice import command
from rate.envs.spec import EnvironmentSpec
from rate.errors import parsing
from rate.renamed import current_manifest
from rate.spaces import differences

_ROWS = 1 << 18  # in memory at once


class Store:
    """A data set in our own format, open for reading.

    Attributes:
        path: Its directory.
        manifest: The contents of `manifest.json`.
        arrays: Every array by name, as read-only maps of files. The first access to one compares
            its file with the digest in the manifest.
        offsets: `(num_episodes + 1,)` int64; episode `i` is the rows `offsets[i]:offsets[i + 1]`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], arrays: CheckedArrays) -> None:
        self.path = path
        self.manifest = manifest
        self.arrays = arrays
        self.offsets: npt.NDArray[np.int64] = np.array(arrays.unchecked["offsets"])

    @classmethod
    def open(cls, path: Path | str, verify: bool = False, background: bool = False) -> Store:
        """Opens a store. Only the manifest and the offsets are read, which takes milliseconds.

        Args:
            path: The store's directory.
            verify: Also read every file now and compare its SHA-256 with the manifest's; else a
                file is compared when its array is first used.
            background: Compare large files in another thread; `check` tells of altered ones.

        Raises:
            DatasetError: If the directory is not a store, is of another schema version, or has a
                file that is missing, truncated or changed. The message names the file.
        """
        with explain_read_errors(DatasetError, Path(path)):
            store = cls._open(Path(path), background)
            if verify:
                for array in store.arrays.values():
                    deque(pieces(array), maxlen=0)  # opens them
                store.check()
            return store

    def check(self, wait: bool = True) -> None:
        """Finds out whether the arrays that were used are as they were written.

        Args:
            wait: Wait for files that are still being compared.

        Raises:
            DatasetError: If one was altered; the message names it.
        """
        self.arrays.check(wait)

    @classmethod
    def _open(cls, path: Path, background: bool) -> Store:
        manifest = read_manifest(path)
        place = f"{path / MANIFEST}: the manifest"
        with parsing(DatasetError, place, "is damaged; make the store again"):
            manifest = current_manifest(manifest)
            entries = {str(name): dict(entry) for name, entry in manifest["arrays"].items()}
            store = cls(path, manifest, open_entries(path, manifest, entries, background))
            check_lengths(path, entries, store.arrays.unchecked, store.offsets)
            _ = store.spec, store.normalisation, store.return_range, store._large_seeds
        check_manifest(path)
        _ = store.arrays["offsets"]  # compares its digest
        return store

    @property
    def num_episodes(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_steps(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`(num_episodes,)` int64, the number of actions of each episode."""
        return np.diff(self.offsets)

    @property
    def return_range(self) -> tuple[float, float]:
        """The least and the greatest return of an episode."""
        low, high = self.manifest["return_range"]
        return float(low), float(high)

    def ends(
        self, episodes: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Returns whether episodes were terminated, and whether they were truncated, `(E,)` each.

        An end of unknown kind counts as a truncation, as the true next state is not known.
        """
        terminated = np.asarray(self.arrays["terminated"])[episodes]
        return terminated, np.asarray(self.arrays["truncated"])[episodes] | ~terminated

    @cached_property
    def spec(self) -> EnvironmentSpec:
        """The environment that the episodes come from."""
        return EnvironmentSpec.from_dict(self.manifest["environment"])

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the manifest, which holds that of every file: it names the contents."""
        return hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()

    @cached_property
    def observations(self) -> Array | dict[str, Array]:
        """`(num_steps, *obs)`, or a dictionary of such arrays."""
        return self._parts(OBSERVATIONS)

    @cached_property
    def last_observations(self) -> Array | dict[str, Array] | None:
        """`(num_episodes, *obs)`, or a dictionary of such arrays: the last observations.

        None if the store does not keep them.
        """
        found = self._parts(LAST)
        return None if isinstance(found, dict) and not found else found

    @cached_property
    def normalisation(self) -> dict[str, tuple[Array, Array]]:
        """Mean and standard deviation, `(D,)` float32 each, of the float vector observations.

        The key is that of the observation, empty where it stands alone.

        Raises:
            DatasetError: If a mean is not finite, or a deviation is negative or not finite.
        """
        found = {
            name[len(OBSERVATIONS) + 1 :]: (
                np.array(entry["mean"], dtype=np.float32),
                np.array(entry["std"], dtype=np.float32),
            )
            for name, entry in self.manifest["normalisation"].items()
        }
        for key, (mean, std) in found.items():
            if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
                raise DatasetError(
                    f"{self.path / MANIFEST}: the normalisation of the observations {key!r} is "
                    "not of finite numbers and deviations from 0 on; make the store again"
                )
        return found

    def action_moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation, `(A,)` float32 each, of float actions; reads all of them."""
        moments = Moments()
        for start in range(0, self.num_steps, _ROWS):
            moments.update(self.arrays["actions"][start : start + _ROWS])
        mean, std = (np.array(part, dtype=np.float32) for part in moments.to_dict().values())
        return mean, std

    def episode(self, index: int) -> Episode:
        """Returns one episode, as copies.

        Raises:
            IndexError: If there is no such episode.
        """
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"{self.path}: episode {index} of {self.num_episodes}")
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        observations = self.observations
        last = self.last_observations
        return Episode(
            observations=_copy(observations, rows),
            actions=self.arrays["actions"][rows].copy(),
            rewards=self.arrays["rewards"][rows].copy(),
            terminated=bool(self.arrays["terminated"][index]),
            truncated=bool(self.arrays["truncated"][index]),
            seed=self.seed(index),
            last_observation=None if last is None else _copy(last, index),
        )

    def seed(self, index: int) -> int | None:
        """Returns the seed of an episode, where known."""
        large = self._large_seeds.get(index)
        if large is not None:
            return large
        seed = int(self.arrays["seeds"][index])
        return None if seed == UNKNOWN_SEED else seed

    @cached_property
    def _large_seeds(self) -> dict[int, int]:
        """The seeds that are not in [0, 2^63), by episode."""
        place = f"{self.path / MANIFEST}: {LARGE_SEEDS}"
        with parsing(DatasetError, place, "is damaged; make the store again"):
            seeds = self.manifest.get(LARGE_SEEDS, {})
            return {int(index): int(seed, 16) for index, seed in seeds.items()}

    def observing(self, space: gymnasium.Space[Any]) -> Store:
        """Returns a view of the store with other observations, such as one key of a dictionary.

        Returns:
            This store, if `space` is its observation space, ignoring the bounds of vectors; else a
            view whose observations are the array of the one key with this space. Other keys are not
            read. The view has the same `fingerprint`, as the files are the same.

        Raises:
            DatasetError: If `space` is neither.
        """
        whole = self.spec.observation_space
        if whole == space or differ_in_bounds(whole, space):
            return self
        found = observation_spaces(whole).items()
        keys = [key for key, part in found if part == space] or [
            key for key, part in found if differ_in_bounds(part, space)
        ]
        if len(keys) != 1:
            have = f", which {' and '.join(keys)} have" if keys else ""
            raise DatasetError(
                f"{self.path}: the observation_space of the data is {whole}, but {space} is wanted"
                f"{have} (the data have {'; '.join(differences(whole, space))}); "
                f"`{command('convert')} --environment` brings data to an environment's form"
            )
        name, prefix = f"{OBSERVATIONS}/{keys[0]}", f"{OBSERVATIONS}/"

        whole_names = {name: OBSERVATIONS, f"{LAST}/{keys[0]}": LAST}

        def keep(table: dict[str, Any]) -> dict[str, Any]:
            return {
                whole_names.get(key, key): value
                for key, value in table.items()
                if key in whole_names or not key.startswith((prefix, LAST))
            }

        manifest = {
            **self.manifest,
            "environment": replace(self.spec, observation_space=space).to_dict(),
            "normalisation": keep(self.manifest["normalisation"]),
            "arrays": keep(self.manifest["arrays"]),
        }
        return Store(self.path, manifest, self.arrays.renamed(keep))

    def _parts(self, name: str) -> Array | dict[str, Array]:
        """Returns an array, or the arrays of the keys of a dictionary."""
        if name in self.arrays:
            return self.arrays[name]
        prefix = f"{name}/"
        return {
            key[len(prefix) :]: self.arrays[key] for key in self.arrays if key.startswith(prefix)
        }


def differ_in_bounds(found: gymnasium.Space[Any], expected: gymnasium.Space[Any]) -> bool:
    """Whether two Boxes of floats differ in their bounds alone, which models do not use."""
    both = isinstance(found, spaces.Box) and isinstance(expected, spaces.Box)
    kinds = {np.dtype(space.dtype).kind for space in (found, expected)}
    return both and found.shape == expected.shape and kinds == {"f"}


def _copy(observations: Array | dict[str, Array], rows: slice | int) -> Any:
    """Returns some rows of every array, in memory."""
    if isinstance(observations, dict):
        return {key: np.array(array[rows]) for key, array in observations.items()}
    return np.array(observations[rows])
