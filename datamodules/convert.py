"""Conversion of a data set of any known format into a store or a Minari data set."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.disk_errors import explain_write_errors, make_folder
from datamodules.episodes import (
    DatasetError,
    Episode,
    observation_items,
    observation_spaces,
)
from datamodules.minari_writer import write_minari
from datamodules.readers.minari import minari_provenance, open_minari
from datamodules.source import OnBad, Source, ValidEpisodes, raise_error
from datamodules.store import Store
from datamodules.store_files import StoreWriter, storage_dtype, store_bytes
from datamodules.store_manifest import NoStoreError
from datamodules.writing import SAVE_SECONDS, make_once, open_writer, partial_path
from rate.files import file_sha256
from rate.progress import OnProgress, no_progress
from rate.stopping import with_message

_MINARI_NAME = re.compile(r"[-\w]+-v\d+")


def convert(
    source: Source,
    destination: Path | str,
    *,
    on_bad: OnBad = raise_error,
    on_progress: OnProgress = no_progress,
    save_seconds: float = SAVE_SECONDS,
) -> Path:
    """Convert a data set into a store, unless the store exists.

    Episodes are streamed, one in memory at a time, into a hidden directory beside the store. Its
    state is flushed to the disk periodically: after an interruption, another call resumes the
    conversion.

    Args:
        source: The data set.
        destination: The store's directory.
        on_bad: Called with the error of each invalid episode, which is then skipped and counted;
            may raise. By default the first error ends the conversion.
        on_progress: Called with the progress: phases `checking` (bytes of the source) and
            `converting` (episodes).
        save_seconds: Seconds between two saves of the state.

    Returns:
        The store's directory.

    Raises:
        DatasetError: If the destination holds other data or files, the disk has too little space,
            or `on_bad` raises it.
        KeyboardInterrupt: On an interrupt; the message says what is kept.
    """
    destination = Path(destination)
    if destination.exists():
        _check_store(destination)
    known = provenance(source, on_progress)
    known["notes"] += narrowed(source)

    def make() -> None:
        check_room(source, destination, partial_path(destination, source.spec, known))
        with open_writer(destination, source.spec, known, keep_last=_has_last(source)) as writer:
            _write(source, writer, known, on_bad, on_progress, save_seconds)

    retained = "What was converted is kept, and the same command goes on."
    return make_once(destination, known, make, "Name another folder.", retained)


def _check_store(destination: Path) -> None:
    """Check that an existing destination is a store, before the whole source is read.

    Raises:
        DatasetError: If it is not.
    """
    try:
        Store.open(destination)
    except NoStoreError:
        raise DatasetError(
            f"{destination}: is there already and is no store; it is left as it is. Name another "
            "folder for the store."
        ) from None


def _write(
    source: Source,
    writer: StoreWriter,
    known: dict[str, Any],
    on_bad: OnBad,
    tell: OnProgress,
    save_seconds: float,
) -> None:
    episodes = ValidEpisodes(source, writer.position, on_bad, writer.clipped)
    skipped, saved = writer.skipped, time.monotonic()
    try:
        for episode in episodes:
            writer.append(episode)
            tell("converting", episodes.position, source.num_episodes)
            if time.monotonic() - saved >= save_seconds:
                writer.save(episodes.position, skipped + episodes.skipped)
                saved = time.monotonic()
    except KeyboardInterrupt as interrupt:
        # An episode may be half written: the last save is the state to resume from.
        raise with_message(
            interrupt,
            f"Stopped after {episodes.position} episodes; what was converted is kept, and the "
            "same command goes on with it.",
        ) from None
    except DatasetError:
        writer.save(episodes.position, skipped + episodes.skipped)
        raise
    clipped = {"clipped": writer.clipped.steps} if writer.clipped.steps else {}
    writer.finish({**known, "skipped": skipped + episodes.skipped, **clipped})
    writer.clipped.warn(source.path)


def convert_to_minari(
    source: Source,
    destination: Path | str,
    *,
    on_bad: OnBad = raise_error,
    on_progress: OnProgress = no_progress,
) -> Path:
    """Convert a data set into a Minari data set without loss: arrays keep their dtype.

    Minari stores the observation after the last action. If the source has none, the last
    observation is repeated, and the data set's `provenance` has `last_observation: repeated`. An
    interrupted conversion starts from the beginning.

    Args:
        source: The data set.
        destination: The data set's directory, whose name is its Minari id: `name-v0`.
        on_bad: As for `convert`.
        on_progress: As for `convert`.

    Returns:
        `destination`.

    Raises:
        DatasetError: As `convert`, and if the name is not a Minari id.
    """
    destination = Path(destination)
    if not _MINARI_NAME.fullmatch(destination.name):
        raise DatasetError(
            f"{destination}: a Minari data set's name is letters, digits, - and _, and ends with "
            f"its version; for example {destination.name or 'data'}-v0"
        )
    if destination.exists():
        open_minari(destination)  # raises if it is not one, before the whole source is read
    known = provenance(source, on_progress)
    if not _has_last(source):
        known["last_observation"] = "repeated"
    if destination.exists():
        return _is_up_to_date(destination, minari_provenance(open_minari(destination)) or {}, known)
    what, elsewhere = f"{destination}: the data set", "Name another folder."
    make_folder(destination.parent, DatasetError, what, elsewhere)
    check_room(source, destination)
    episodes = ValidEpisodes(source, on_bad=on_bad)

    def with_last_observation() -> Iterator[Episode]:
        for episode in episodes:
            seen = episode.observations
            if episode.last_observation is not None:
                yield episode
            else:
                last = {k: v[-1] for k, v in seen.items()} if isinstance(seen, dict) else seen[-1]
                yield replace(episode, last_observation=last)
            on_progress("converting", episodes.position, source.num_episodes)

    with explain_write_errors(DatasetError, what, f"{elsewhere} Or make room."):
        made = write_minari(
            with_last_observation(),
            destination.parent,
            destination.name,
            source.spec,
            algorithm="unknown",
            description=f"Converted from {known['source']} ({source.format}).",
            provenance=known,
        )
    episodes.clipped.warn(source.path)
    return made


def provenance(source: Source, tell: OnProgress) -> dict[str, Any]:
    """Returns the provenance of a source: name, format, notes and the SHA-256 of each file."""
    sizes = {file: file.stat().st_size for file in source.files}
    root, done, total = source.path.parent, 0, sum(sizes.values())
    digests = {}
    tell("checking", 0, total)
    for file, size in sizes.items():
        digests[file.relative_to(root).as_posix()] = file_sha256(file)
        done += size
        tell("checking", done, total)
    return {
        "source": source.path.resolve().name,
        "format": source.format,
        "notes": list(source.notes),
        "sha256": digests,
    }


def narrowed(source: Source) -> list[str]:
    """Returns a note for each array that a store keeps in a dtype of less range or precision."""
    first = _first(source)
    if first is None:
        return []
    spaces = observation_spaces(source.spec.observation_space)
    seen = observation_items(first.observations)
    columns = {
        f"observations {key}".rstrip(): (seen[key].dtype, storage_dtype(space))
        for key, space in spaces.items()
        if key in seen
    }
    columns["actions"] = first.actions.dtype, storage_dtype(source.spec.action_space)
    columns["rewards"] = np.asarray(first.rewards).dtype, np.dtype(np.float32)
    return [
        f"{name} are {found}, and the store keeps them as {storage}"
        for name, (found, storage) in columns.items()
        if found.kind in "fiu" and not np.can_cast(found, storage)
    ]


def predicted_bytes(source: Source) -> int | None:
    """Returns the approximate size of a source's store in bytes; None if it is not known."""
    if source.num_steps is None or source.num_episodes is None:
        return None
    return store_bytes(source.spec, source.num_episodes, source.num_steps, _has_last(source))


def check_room(source: Source, destination: Path, partial: Path | None = None) -> None:
    """Check that the disk has space for the store of a source.

    Args:
        source: The data set.
        destination: The store's directory.
        partial: The directory of the unfinished store, whose size is deducted.

    Raises:
        DatasetError: If there is less free space than the remaining data will take.
    """
    predicted = predicted_bytes(source)
    if predicted is None:
        return
    done = 0
    if partial is not None and partial.is_dir():
        done = sum(file.stat().st_size for file in partial.iterdir())
    free = shutil.disk_usage(destination.parent).free
    if predicted - done > free:
        raise DatasetError(
            f"{destination}: the data will take {predicted / 1e9:.3g} GB, but only "
            f"{free / 1e9:.3g} GB are free there; choose a destination on another disk"
        )


def _first(source: Source) -> Episode | None:
    """Returns the first readable episode of a source, or None."""
    return next(source.read(0, lambda error: None), None)


def _has_last(source: Source) -> bool:
    """Whether a source has the observations after the last actions."""
    first = _first(source)
    return first is not None and first.last_observation is not None


def _is_up_to_date(destination: Path, found: dict[str, Any], expected: dict[str, Any]) -> Path:
    """Returns the destination if it was made from the same files.

    Raises:
        DatasetError: If it was not.
    """
    if {key: found.get(key) for key in expected} != expected:
        raise DatasetError(
            f"{destination}: holds other data; delete it, or choose another destination"
        )
    return destination
