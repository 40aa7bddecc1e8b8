"""The data set writer: episodes into a store's directory, resumable and all or nothing.

Conversion, collection and `write_store` write here. Episodes go once, in their order, into the
files of the store itself, which stand in a hidden directory beside it until all are written. Its
state is made durable now and then, so that whoever writes the same data later goes on from there.
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

SAVE_SECONDS = 5.0  # at most so much work is lost when a process is killed
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
    """A writer of a store, which gets its name at the end of the block.

    The block appends the episodes from `writer.position` on, and calls `writer.finish`. Then what
    is unfinished, of other data of this name, is removed.

    Args:
        destination: The store's directory, which must not exist.
        spec: The environment that the episodes come from.
        provenance: What tells these data from others.
        keep_last: See `StoreWriter`.
        resumable: Go on from what an interrupted process has saved, and keep what is written if the
            block raises; otherwise begin anew and remove it.

    Raises:
        DatasetError: If `destination` exists, or what is gone on with is damaged.
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
    """Where the files of a store stand until it is finished."""
    return destination.with_name(
        f".{destination.name}.partial-{digest([provenance, spec.to_dict()])[:12]}"
    )


def digest(data: Any) -> str:
    """The SHA-256 of plain JSON types."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_store(
    episodes: Iterable[Episode],
    destination: Path | str,
    spec: EnvironmentSpec,
    provenance: dict[str, Any],
) -> Store:
    """Write episodes as a store, in one streaming pass and bounded memory.

    Either the whole store appears under its name, or nothing does.

    Args:
        episodes: The episodes, each checked against `spec`.
        destination: The store's directory, which must not exist.
        spec: The environment that they come from.
        provenance: What to remember of their origin, plain JSON types. `source` is the name that
            errors use. Keep dates out of it and equal data give an equal `fingerprint`.

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
    kept: str = "",
) -> Path:
    """Make a store unless it stands already; of several processes at once, one makes it.

    Args:
        store: The store's directory.
        provenance: What its manifest says, or will say, beside what its making may add.
        make: Makes it.
        elsewhere: What to do if the folder cannot be written.
        kept: What is there still if the disk is full, for people.

    Returns:
        `store`.

    Raises:
        DatasetError: If a store stands there that is damaged or of other provenance, or if the
            folder cannot be written.
    """
    if _is_made(store, provenance):  # before the lock, which needs a folder that can be written
        return store
    what = f"{store}: the data"
    make_folder(store.parent, DatasetError, what, elsewhere)
    advice = f"{elsewhere} Or make room. {kept}".rstrip()
    with (
        explain_write_errors(DatasetError, what, advice),
        locked(store.with_name(f".{store.name}.generate.lock"), f"making {store}"),
        message_on_stop(f" while {store} was being made; the same command goes on."),
    ):
        if not _is_made(store, provenance):
            make()
    return store


def _is_made(store: Path, provenance: dict[str, Any]) -> bool:
    """Whether the store is there; an error if it is damaged or holds something else."""
    with explain_read_errors(DatasetError, store):
        if not store.exists():
            return False
    found = Store.open(store).manifest["provenance"]
    if {key: found.get(key) for key in provenance} != provenance:
        raise DatasetError(f"{store}: holds other data; delete it, or use another folder")
    return True
