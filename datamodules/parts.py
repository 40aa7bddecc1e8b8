"""Part files: each finished episode of a collection that is under way."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.disk_errors import explain_write_errors
from datamodules.episodes import Array, DatasetError, Episode, observation_items
from datamodules.npy import BAD_HEADER
from rate.files import atomic_path, remove_drafts

_FIRST, _LAST = "first", "last"
# What NumPy and zipfile raise for files that were cut off or changed.
_UNREADABLE = (OSError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, *BAD_HEADER)


@dataclass(frozen=True)
class Parts:
    """A folder with one file for each episode, named by its seed.

    Attributes:
        path: The folder.
    """

    path: Path

    def file(self, seed: int) -> Path:
        return self.path / f"{seed}.npz"

    def prepare(self) -> None:
        """Make the folder, without what processes that died were writing."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_drafts(self.path)

    def missing(self, seeds: Iterable[int]) -> list[int]:
        """The seeds whose episodes are still to be played. Damaged files are removed."""
        missing = []
        for seed in seeds:
            try:
                self.read(seed)
            except DatasetError:
                self.file(seed).unlink(missing_ok=True)
                missing.append(seed)
        return missing

    def write(self, seed: int, episode: Episode) -> None:
        """Keep the episode of a seed: its file is whole and on the disk, or absent.

        Raises:
            DatasetError: If the disk is full.
        """
        arrays: dict[str, Any] = {
            "actions": episode.actions,
            "rewards": episode.rewards,
            "flags": np.array([episode.terminated, episode.truncated]),
            "outcome_names": np.array(list(episode.outcome), dtype=np.str_),
            "outcome": np.array(list(episode.outcome.values()), dtype=np.float64),
        }
        for prefix, observations in (
            (_FIRST, episode.observations),
            (_LAST, episode.last_observation),
        ):
            if observations is None:
                continue
            for key, array in observation_items(observations).items():
                arrays[f"{prefix}/{key}"] = array
        advice = "Those before are kept: make room, and the same command goes on."
        with (
            explain_write_errors(DatasetError, f"{self.path}: the next episode", advice),
            atomic_path(self.file(seed)) as draft,
            draft.open("xb") as file,
        ):
            np.savez(file, **arrays)

    def read(self, seed: int) -> Episode:
        """The episode of a seed.

        Raises:
            DatasetError: If its file is absent or damaged (the file keeps checksums).
        """
        try:
            with np.load(self.file(seed), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            terminated, truncated = arrays["flags"].tolist()
            names, values = arrays["outcome_names"].tolist(), arrays["outcome"].tolist()
            return Episode(
                observations=_observations(arrays, _FIRST),
                actions=arrays["actions"],
                rewards=arrays["rewards"],
                terminated=terminated,
                truncated=truncated,
                seed=seed,
                last_observation=_observations(arrays, _LAST),
                outcome=dict(zip(names, values, strict=True)),
            )
        except _UNREADABLE as error:
            raise DatasetError(f"{self.file(seed)}: cannot be read ({error})") from error

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _observations(arrays: dict[str, Array], prefix: str) -> Any:
    """The array or the dictionary of arrays that was written under a prefix; None without one."""
    start = f"{prefix}/"
    found = {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}
    return found[""] if list(found) == [""] else found or None
