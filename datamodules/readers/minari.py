"""Reads the episodes of Minari data sets.

Minari takes seconds to import, so nothing here imports it before it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.episodes import (
    Array,
    DatasetError,
    Episode,
    integer_seed,
    observation_items,
)
from datamodules.readers.minari_files import EpisodeFiles, open_files
from datamodules.readers.spaces import action_array, observation_arrays
from datamodules.source import OnBad, raise_error
from rate.advice import install
from rate.files import load_json

if TYPE_CHECKING:
    from minari import MinariDataset

PROVENANCE = "provenance"
# What h5py, Pillow and Arrow raise for files that were cut off or changed.
_UNREADABLE = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    RuntimeError,
    AssertionError,
    MemoryError,
)


def open_minari(path: Path | str) -> MinariDataset:
    """Opens the Minari data set in a directory (the one that holds `data`).

    Raises:
        DatasetError: If there is none, or it cannot be read.
    """
    import minari

    data = Path(path) / "data"
    if not data.is_dir():
        raise DatasetError(f"{path}: not a Minari data set, there is no 'data' directory in it")
    try:
        _check_spaces(data / "metadata.json")
        return minari.MinariDataset(data)
    except ImportError as error:
        raise DatasetError(
            f"{path}: {error}; Minari's formats other than HDF5 need pyarrow: {install('minari')}"
        ) from error
    except _UNREADABLE as error:
        raise DatasetError(f"{path}: the Minari data set cannot be read ({error})") from error


def _check_spaces(path: Path) -> None:
    """Refuses a data set without spaces: Minari would make its environment, which runs code.

    Raises:
        DatasetError: If it does not say its spaces itself.
    """
    metadata = load_json(path)
    missing = [name for name in ("observation_space", "action_space") if not metadata.get(name)]
    if missing:
        raise DatasetError(
            f"{path}: {' and '.join(missing)} missing. Minari would make the environment that "
            "the file names to find out, and what a file names is not run here. Open the data set "
            "with Minari where you trust it, and write the spaces into metadata.json with "
            "minari.serialization.serialize_space"
        )


def read_minari(
    dataset: MinariDataset, start: int = 0, on_bad: OnBad = raise_error
) -> Iterator[Episode]:
    """Yields the episodes of a Minari data set, one in memory at a time.

    Args:
        dataset: In any of Minari's formats, of any space: nested observations come as one
            dictionary whose keys are paths.
        start: The number of the first to read.
        on_bad: Called with the error of each episode that cannot be read.

    Raises:
        DatasetError: If an episode cannot be read, naming the folder and it.
    """
    source = str(Path(dataset.storage.data_path).parent)
    with closing(files_of(dataset)) as files:
        for number in dataset.episode_indices[start:].tolist():
            place = f"{source}, episode {number}"
            try:
                episode = _episode(dataset, files.read(number), place)
            except DatasetError as error:
                on_bad(error)
            except _UNREADABLE as error:
                on_bad(DatasetError(f"{place}: cannot be read ({error})"))
            else:
                yield episode


def files_of(dataset: MinariDataset) -> EpisodeFiles:
    """Returns a reader of the episodes in the files of a data set."""
    storage, spec = dataset.storage, dataset.spec
    folder = Path(storage.data_path)
    return open_files(folder, storage.FORMAT, spec.observation_space, spec.action_space)


def has_jpeg(dataset: MinariDataset) -> bool:
    """Whether images are stored as JPEG, as the first episode that can be read has them."""
    with closing(files_of(dataset)) as files:
        for number in dataset.episode_indices.tolist():
            try:
                files.read(number)
            except _UNREADABLE:
                continue
            return files.jpeg
    return False


def _episode(dataset: MinariDataset, data: dict[str, Any], place: str) -> Episode:
    """Returns an episode from Minari's columns, which have one observation more than actions."""
    steps = len(data["rewards"])
    if not steps:
        raise DatasetError(f"{place}: the episode has no steps")
    actions = action_array(data["actions"])
    observations = observation_arrays(dataset.spec.observation_space, data["observations"])
    for key, array in observation_items(observations).items():
        if len(array) != steps + 1:
            name = f"observations[{key!r}]" if key else "observations"
            raise DatasetError(
                f"{place}: {name} has {len(array)} rows, but {steps} rewards need {steps + 1}"
            )
    for name, array in (
        ("actions", actions),
        ("terminations", data["terminations"]),
        ("truncations", data["truncations"]),
    ):
        if len(array) != steps:
            raise DatasetError(f"{place}: {name} has {len(array)} steps, but rewards has {steps}")
        if name != "actions" and np.any(array[:-1]):
            raise DatasetError(
                f"{place}: {name} is true at step {int(np.argmax(array[:-1]))}, but the episode "
                f"goes on to step {steps - 1}"
            )
    return Episode(
        observations=_rows(observations, slice(steps)),
        actions=actions,
        rewards=np.asarray(data["rewards"]).reshape(steps),
        terminated=bool(data["terminations"][-1]),
        truncated=bool(data["truncations"][-1]),
        seed=integer_seed(data["seed"]),
        last_observation=_rows(observations, -1),
    )


def minari_provenance(dataset: MinariDataset) -> dict[str, Any] | None:
    """Returns the provenance that `datamodules.minari_writer.write_minari` stored, if any."""
    provenance: dict[str, Any] | None = dataset.storage.metadata.get(PROVENANCE)
    return provenance


def _rows(observations: Array | dict[str, Array], rows: Any) -> Any:
    """Returns some rows of observations, key by key in a dictionary."""
    if isinstance(observations, dict):
        return {key: array[rows] for key, array in observations.items()}
    return observations[rows]
