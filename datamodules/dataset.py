"""Data sets of users: files of any format, public data sets by name, and arrays in memory.

Training reads stores. Data of other formats are converted at first use to a store below the data
root, which is found there the next time.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.compatibility import is_compatible, unsupported_spaces
from datamodules.convert import convert
from datamodules.episodes import DatasetError, Episode, observation_items
from datamodules.formats import find_format, open_source
from datamodules.local_data import find_named
from datamodules.options import Options
from datamodules.readers.in_memory import open_in_memory
from datamodules.source import Source, ValidEpisodes, raise_error
from datamodules.store import Store
from datamodules.writing import make_once, write_store
from rate.envs.spec import EnvironmentSpec
from rate.progress import OnProgress, no_progress, with_progress

ROOT = "data"
Arrays = Any  # a dictionary, a list, or what `datamodules.readers.in_memory` knows


@dataclass(frozen=True)
class Dataset:
    """Trajectories that models can be trained on.

    Attributes:
        path: The store that holds them.
    """

    path: Path

    @cached_property
    def store(self) -> Store:
        """The store, opened: its arrays, episodes and lengths."""
        return Store.open(self.path)

    @property
    def spec(self) -> EnvironmentSpec:
        """The environment of the data, as they say it or as it is inferred."""
        return self.store.spec

    @classmethod
    def open(
        cls,
        source: Path | str,
        root: Path | str = ROOT,
        options: Options | None = None,
        *,
        spec: EnvironmentSpec | None = None,
        skip_bad: bool = False,
        on_progress: OnProgress = no_progress,
    ) -> Dataset:
        """Opens data of any format that `rate convert` reads.

        Args:
            source: A file or folder, or the name of a public data set that is on this computer, as
                Minari's `mujoco/hopper/medium-v0` and D4RL's `hopper-medium-v2`.
            root: The data root, where the store is made.
            options: What the data do not say.
            spec: The environment that models of the data are for, if it is known: what the data
                leave open, like the bounds of actions, is as it says.
            skip_bad: Leave out episodes that are not valid, and warn of how many; else the first
                is an error.
            on_progress: Called with the progress.

        Raises:
            DatasetError: If there is none, its format is not known, it is damaged or not valid, or
                no model can be trained on it. The message says what to do.
        """
        path, options = find_data(source, Path(root)), options or Options()
        found = find_format(path)
        if found is not None and found.name == "store" and options == Options():
            return cls(path)
        key = [str(path.resolve()), _state(path), asdict(options), skip_bad]
        own = _place(Path(root), path.name, key)
        if own.exists() and (spec is None or is_compatible(cls(own).spec, spec)):
            return cls(own)
        opened, store = open_source(path, options), own
        if spec is not None and not is_compatible(opened.spec, spec):
            store = _place(Path(root), path.name, [*key, spec.to_dict()])
            if store.exists():
                return cls(store)
            opened = open_source(path, replace(options, spec=spec))
        _check_trainable(opened)
        skipped = _Skipped() if skip_bad else None
        convert(opened, store, on_bad=skipped or raise_error, on_progress=on_progress)
        if skipped is not None:
            skipped.warn(path)
        return cls(store)

    @classmethod
    def from_arrays(
        cls,
        arrays: Arrays,
        root: Path | str = ROOT,
        options: Options | None = None,
        *,
        name: str = "arrays",
        spec: EnvironmentSpec | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Dataset:
        """Makes a data set of arrays in memory, named as the columns of files are.

        Args:
            arrays: A dictionary of columns over the steps of all episodes, `observations (S, *obs)`
                or a dictionary of such, `actions (S, *act)`, `rewards (S,)`, and what ends
                episodes: `terminated (S,)`, `truncated (S,)`, `dones`, `episode` and others. Or a
                list of episodes, each a dictionary of the same columns over its own `T` steps. Or
                an open data set of Hugging Face's `datasets`, pandas, pyarrow or Minari.
            root: The data root, where the store is made.
            options: What the arrays do not say.
            name: The beginning of the store's name.
            spec: See `open`.
            on_progress: Called with the progress.

        Raises:
            DatasetError: If a column is missing, lengths disagree, a value is not finite or not of
                the environment, or no model can be trained on them.
        """
        options = options or Options()
        source = open_in_memory(name, arrays, options)
        if spec is not None and not is_compatible(source.spec, spec):
            source = replace(open_in_memory(name, arrays, replace(options, spec=spec)), spec=spec)
        _check_trainable(source)
        store = _place(Path(root), name, [source.spec.to_dict(), _digest(ValidEpisodes(source))])
        known = {"source": name, "format": source.format, "notes": list(source.notes)}

        def make() -> None:
            checked = ValidEpisodes(source)
            episodes = with_progress(checked, "packing", source.num_episodes, on_progress)
            write_store(episodes, store, source.spec, known)
            checked.clipped.warn(source.path)

        return cls(make_once(store, known, make))


def find_data(source: Path | str, root: Path) -> Path:
    """Returns the file or folder at a path, or of a public data set by its name.

    Raises:
        DatasetError: If there is none of either; says how to get one that is known.
    """
    path = Path(source)
    return path if path.exists() else find_named(str(source), root)


def _check_trainable(source: Source) -> None:
    """Checks that models support the spaces, before the data are converted.

    Raises:
        DatasetError: If so.
    """
    for reason in unsupported_spaces(source.spec):
        raise DatasetError(f"{source.path}: {reason}")


def _place(root: Path, name: str, key: list[Any]) -> Path:
    """Returns the path of the store of some data; it depends on the data alone."""
    words = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return root / "stores" / f"{words}-{digest}"


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Returns the names, sizes and times of files, which change when the files do."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [(str(f), (found := f.stat()).st_size, found.st_mtime_ns) for f in files]


def _digest(episodes: Iterable[Episode]) -> str:
    """Returns a hash of the contents of episodes."""
    digest = hashlib.sha256()
    for episode in episodes:
        seen = observation_items(episode.observations)
        for key, array in [*seen.items(), ("a", episode.actions), ("r", episode.rewards)]:
            digest.update(f"{key} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(f"{episode.terminated} {episode.truncated} {episode.seed}".encode())
    return digest.hexdigest()


class _Skipped:
    """Counts episodes that are not valid, and keeps the error of the first."""

    def __init__(self) -> None:
        self.number, self.first = 0, ""

    def __call__(self, error: DatasetError) -> None:
        self.number += 1
        self.first = self.first or str(error)

    def warn(self, path: Path) -> None:
        if self.number:
            warnings.warn(
                f"{path}: {self.number:,} episodes are not valid and left out, first: {self.first}",
                stacklevel=3,
            )
