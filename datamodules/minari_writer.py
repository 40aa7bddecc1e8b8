"""Writes episodes as a Minari data set."""

from __future__ import annotations

import inspect
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from datamodules.disk_errors import require_room
from datamodules.episodes import Array, DatasetError, Episode, observation_items
from datamodules.readers.minari import PROVENANCE
from datamodules.variables import environment_variable
from rate.envs.spec import EnvironmentSpec
from rate.files import publish


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
            when it is needed.
        root: The folder of Minari data sets; with `MINARI_DATASETS_PATH` set to it, Minari lists
            them.
        dataset_id: A Minari id, `namespace/name-v0`.
        env: The environment that was played, made with `gymnasium.make`, so that Minari can
            recover it; or only what is known of it.
        algorithm: Name of the policy.
        description: One sentence for those who find the data set.
        provenance: Metadata of their origin, JSON types, which `minari_provenance` returns.

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
    temporary.mkdir(parents=True)
    try:
        require_room(temporary / "data", 0)
        with (
            environment_variable("MINARI_DATASETS_PATH", str(temporary)),
            warnings.catch_warnings(),
        ):
            # Minari asks for authors and links, which a user's own data need not have.
            warnings.simplefilter("ignore", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                _buffers(episodes, dataset_id, temporary),  # it takes them one by one
                algorithm_name=algorithm,
                description=description,
                **options,
            )
            if isinstance(env, EnvironmentSpec) and env.recorded:
                dataset.storage.update_metadata({"env_spec": env.recorded})
            if provenance is not None:
                dataset.storage.update_metadata({PROVENANCE: provenance})
        _publish(temporary / dataset_id, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return destination


def keeps_pixels() -> bool:
    """Whether the installed Minari can store images as they are."""
    import minari

    return "jpeg_encoding" in inspect.signature(minari.create_dataset_from_buffers).parameters


def _buffers(episodes: Iterable[Episode], dataset_id: str, folder: Path) -> Iterator[Any]:
    """Yields episodes as Minari's buffers; refuses pixels if Minari would change them.

    Raises:
        OSError: If the disk of `folder` has no room for the next.
    """
    from minari.data_collector.episode_buffer import EpisodeBuffer

    exact = keeps_pixels()
    for item in episodes:
        if not exact and _has_pixels(item):
            raise DatasetError(
                f"{dataset_id}: the installed Minari stores pixels as JPEG only, which changes "
                "them. Install Minari 0.5.4 or newer, which needs Python 3.11 or newer."
            )
        arrays = [*observation_items(item.observations).values(), item.actions, item.rewards]
        file = next(folder.rglob("*.hdf5"), folder / "data")
        require_room(file, sum(array.nbytes for array in arrays))
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
