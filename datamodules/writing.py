"""The data set writer: writes episodes into a store, resumably and atomically.

Conversion, collection and `write_store` use it. Episodes are written once, in order, into the files
of the store in a hidden directory beside the final one, which is renamed when all are written. The
state is flushed to the disk periodically, so that an interrupted process can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.disk_errors import explain_read_errors, explain_write_errors, make_folder
from datamodules.episodes import DatasetError, Episode, validate_episode
from datamodules.store import Store
from datamodules.store_files import StoreWriter
from rate.envs.spec import EnvironmentSpec
from rate.files import publish
from rate.locks import locked
from rate.stopping import message_on_stop

SAVE_SECONDS = 5.0  # between two saves: at most this much work is lost when a process is killed
ELSEWHERE = "Name another folder with --data.root."


@contextmanager
def open_writer(
    destination: Path,
    spec: EnvironmentSpec,
    provenance: dict[str, Any],
    *,
    keep_last: bool = False,
    resumable: bool = True,
) -> Iterator[StoreWriter]:
    """Yields the writer of a store, which is renamed to `destination` at the end of the block.

    The block appends the episodes from `writer.position` on, and calls `writer.finish`. Unfinished
    stores of other data for the same destination are removed afterwards.

    Args:
        destination: The store's directory, which must not exist.
        spec: The environment of the episodes.
        provenance: Identifies the data: an unfinished store is resumed only if it is equal.
        keep_last: See `StoreWriter`.
        resumable: Resume from the saved state of an interrupted process, and keep the written files
            if the block raises. Otherwise start from the beginning, and remove the files.

    Raises:
        DatasetError: If `destination` exists, or the saved state is damaged.
        OSError: If the files cannot be written.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(destination, spec, provenance)
    with locked(destination.with_name(f".{destination.name}.lock"), f"writing {destination}"):
        if destination.exists():
            raise DatasetError(
                f"{destination}: already exists; delete it, or choose another destination"
            )
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        try:
            with StoreWriter(partial, spec, keep_last) as writer:
                yield writer
            publish(partial, destination)
            for left in destination.parent.glob(f".{destination.name}.partial-*"):
                shutil.rmtree(left, ignore_errors=True)  # it may be another user's
        except BaseException:
            if not resumable:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def partial_path(destination: Path, spec: EnvironmentSpec, provenance: dict[str, Any]) -> Path:
    """Returns the directory of a store's files until it is finished."""
    return destination.with_name(
        f".{destination.name}.partial-{digest([provenance, spec.to_dict()])[:12]}"
    )


def digest(data: Any) -> str:
    """Returns the SHA-256 of plain JSON types, as 64 hexadecimal digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_store(
    episodes: Iterable[Episode],
    destination: Path | str,
    spec: EnvironmentSpec,
    provenance: dict[str, Any],
) -> Store:
    """Write episodes as a store, in one streaming pass and bounded memory.

    The store appears complete under its name, or not at all.

    Args:
        episodes: The episodes, each checked against `spec`.
        destination: The store's directory, which must not exist.
        spec: The environment of the episodes.
        provenance: The origin of the data, plain JSON types, for the manifest. `source` is the name
            that errors use. Without dates in it, equal data have an equal `fingerprint`.

    Returns:
        The store.

    Raises:
        DatasetError: If there are no episodes, one is not valid, or `destination` exists.
        OSError: If the files cannot be written.
    """
    destination = Path(destination)
    source = str(provenance.get("source", destination))
    with open_writer(destination, spec, provenance, resumable=False) as writer:
        for index, episode in enumerate(episodes):
            validate_episode(episode, spec, source, index)
            writer.append(episode)
        writer.finish(provenance)
    return Store.open(destination)


def make_once(
    store: Path,
    provenance: dict[str, Any],
    make: Callable[[], object],
    elsewhere: str = ELSEWHERE,
    retained: str = "",
) -> Path:
    """Make a store unless it exists; of several concurrent processes, one makes it.

    Args:
        store: The store's directory.
        provenance: The entries that the manifest's provenance must have; `make` may add others.
        make: Makes the store.
        elsewhere: Advice for the error if the folder cannot be written.
        retained: For the error if the disk is full: what is kept.

    Returns:
        `store`.

    Raises:
        DatasetError: If the existing store is damaged or of other provenance, or the folder cannot
            be written.
    """
    if _is_made(store, provenance):  # before the lock, which needs a writable folder
        return store
    what = f"{store}: the data"
    make_folder(store.parent, DatasetError, what, elsewhere)
    advice = f"{elsewhere} Or make room. {retained}".rstrip()
    with (
        explain_write_errors(DatasetError, what, advice),
        locked(store.with_name(f".{store.name}.generate.lock"), f"making {store}"),
        message_on_stop(f" while {store} was being made; the same command goes on."),
    ):
        if not _is_made(store, provenance):
            make()
    return store


def _is_made(store: Path, provenance: dict[str, Any]) -> bool:
    """Whether the store exists.

    Raises:
        DatasetError: If it is damaged or of other provenance.
    """
    with explain_read_errors(DatasetError, store):
        if not store.exists():
            return False
    found = Store.open(store).manifest["provenance"]
    if {key: found.get(key) for key in provenance} != provenance:
        raise DatasetError(f"{store}: holds other data; delete it, or use another folder")
    return True
