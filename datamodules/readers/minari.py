"""Minari data sets: reads any into episodes, and writes collected episodes.

Minari takes seconds to import, so nothing here imports it before it is needed.
"""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
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
from datamodules.variables import environment_variable
from rate.advice import install
from rate.envs.spec import EnvironmentSpec
from rate.files import publish

if TYPE_CHECKING:
    from minari import MinariDataset

_PROVENANCE = "provenance"
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
    metadata = json.loads(path.read_text(encoding="utf-8"))
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


def write_minari(
    episodes: Iterable[Episode],
    root: Path,
    dataset_id: str,
    env: gymnasium.Env[Any, Any] | EnvironmentSpec,
    algorithm: str,
    description: str,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Writes episodes as a Minari data set, without loss, under `root / dataset_id`.

    One episode at a time is in memory. The data set is written under another name and renamed
    once, so that it is whole or absent. Two processes must not write the same `dataset_id` at once.

    Args:
        episodes: The episodes, each with its `last_observation`; an iterator may read or play each
            when it is asked for.
        root: Where the data sets lie; set `MINARI_DATASETS_PATH` to it to list them with Minari.
        dataset_id: A Minari id, `namespace/name-v0`.
        env: The environment that was played, made with `gymnasium.make`, so that Minari can
            recover it; or only what is known of it.
        algorithm: Name of the policy.
        description: One sentence for those who find the data set.
        provenance: What to remember of their origin, plain JSON types; `minari_provenance` tells.

    Returns:
        The data set's directory.

    Raises:
        DatasetError: If there are pixels and the installed Minari would change them.
    """
    import minari

    options: dict[str, Any] = {"data_format": "hdf5"}
    if isinstance(env, EnvironmentSpec):
        options["observation_space"] = env.observation_space
        options["action_space"] = env.action_space
    else:
        options["env"] = env
    if keeps_pixels():
        options["jpeg_encoding"] = False  # Minari's default for pixels is lossy
    root = root.absolute()  # Minari joins a relative path to itself
    destination, temporary = root / dataset_id, root / f".{dataset_id.replace('/', '-')}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # from a process that died
    try:
        with (
            environment_variable("MINARI_DATASETS_PATH", str(temporary)),
            warnings.catch_warnings(),
        ):
            # Minari asks for authors and links, which a user's own data need not have.
            warnings.simplefilter("ignore", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                _buffers(episodes, dataset_id),  # it takes them one by one
                algorithm_name=algorithm,
                description=description,
                **options,
            )
            if isinstance(env, EnvironmentSpec) and env.recorded:
                dataset.storage.update_metadata({"env_spec": env.recorded})
            if provenance is not None:
                dataset.storage.update_metadata({_PROVENANCE: provenance})
        _publish(temporary / dataset_id, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return destination


def keeps_pixels() -> bool:
    """Whether the installed Minari can store images as they are."""
    import minari

    return "jpeg_encoding" in inspect.signature(minari.create_dataset_from_buffers).parameters


def minari_provenance(dataset: MinariDataset) -> dict[str, Any] | None:
    """Returns the provenance that `write_minari` stored, if any."""
    provenance: dict[str, Any] | None = dataset.storage.metadata.get(_PROVENANCE)
    return provenance


def _buffers(episodes: Iterable[Episode], dataset_id: str) -> Iterator[Any]:
    """Yields episodes as Minari's buffers; refuses pixels if Minari would change them."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    exact = keeps_pixels()
    for item in episodes:
        if not exact and _has_pixels(item):
            raise DatasetError(
                f"{dataset_id}: the installed Minari stores pixels as JPEG only, which changes "
                "them. Install Minari 0.5.4 or newer, which needs Python 3.11 or newer."
            )
        yield EpisodeBuffer(
            seed=_stored_seed(item.seed),
            observations=_append(item.observations, item.last_observation),
            actions=item.actions,
            rewards=np.asarray(item.rewards),
            terminations=_flags(item, item.terminated),
            truncations=_flags(item, item.truncated),
        )


def _stored_seed(seed: int | None) -> Any:
    """Returns a seed as HDF5 can hold it: as text, which Minari reads, above 64 bits."""
    fits = seed is None or -(1 << 63) <= seed < 1 << 64
    return seed if fits else str(seed)


def _has_pixels(episode: Episode) -> bool:
    """Whether an episode has images, or what Minari takes for some."""
    arrays = observation_items(episode.observations).values()
    return any(array.dtype == np.uint8 and array.ndim >= 2 for array in arrays)


def _publish(written: Path, destination: Path) -> None:
    """Syncs a finished data set to disk and moves it, with its namespace's metadata, into place."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    for file in written.parent.glob("*.json"):
        publish(file, destination.parent / file.name)
    publish(written, destination)


def _rows(observations: Array | dict[str, Array], rows: Any) -> Any:
    """Returns some rows of observations, key by key in a dictionary."""
    if isinstance(observations, dict):
        return {key: array[rows] for key, array in observations.items()}
    return observations[rows]


def _append(observations: Any, last: Any) -> Any:
    """Joins `(T, *obs)` and `(*obs)` to `(T + 1, *obs)`, key by key in a dictionary."""
    if isinstance(observations, dict):
        return {key: _append(item, last[key]) for key, item in observations.items()}
    return np.concatenate([observations, np.asarray(last, dtype=observations.dtype)[None]])


def _flags(episode: Episode, value: bool) -> Array:
    """Returns `(T,)` bool flags: False until the last step, which has `value`."""
    flags = np.zeros(len(episode), dtype=bool)
    flags[-1] = value
    return flags
