"""The manifest of a store: `manifest.json`, and the files that it names."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.checked_arrays import Check, CheckedArrays
from datamodules.episodes import Array, DatasetError
from datamodules.npy import open_array
from datamodules.shards import SHARDED_VERSION, SHARDS, open_shards
from datamodules.store_files import (
    FORMAT,
    LAST,
    MANIFEST,
    MANIFEST_DIGEST,
    OBSERVATIONS,
    SCHEMA_VERSION,
)
from rate.advice import command
from rate.files import file_sha256, load_json
from rate.renamed import current_manifest


class NoStoreError(DatasetError):
    """A path holds no store."""

    @classmethod
    def at(cls, path: Path, found: str | None = None) -> NoStoreError:
        """Returns the error of a path; `found` is what is there instead, if it can be converted."""
        advice = "check the path" if found is None else f"it is {found}"
        source = "SOURCE" if found is None else str(path)
        return cls(
            f"{path}: not a trajectory store, there is no {MANIFEST}; {advice}. Make a store of "
            f"your data with: {command('convert', source, 'DEST')}"
        )


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns the manifest of a store.

    Raises:
        NoStoreError: If there is none.
        DatasetError: If it is damaged, or of another format or version.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise NoStoreError.at(path)
    try:
        manifest = load_json(file)
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise
        raise DatasetError(f"{file}: not valid JSON ({error}); make the store again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"{file}: not the manifest of a trajectory store; check the path")
    expected = SHARDED_VERSION if SHARDS in manifest else SCHEMA_VERSION
    if manifest.get("schema_version") != expected:
        raise DatasetError(
            f"{file}: schema version {manifest.get('schema_version')}, but this program reads "
            f"version {expected}; make the store again from its source"
        )
    return manifest


def open_entries(
    path: Path, manifest: dict[str, Any], entries: dict[str, Any], background: bool
) -> CheckedArrays:
    """Memory-maps the arrays of a manifest, whose files must be directly in the store.

    Of a store of shards these are the arrays that have a row per episode.
    """
    arrays: dict[str, Any] = {}
    checks: dict[str, Check] = {}
    if SHARDS in manifest:
        arrays.update(open_shards(path, manifest, partial(_open_shard, background=background)))
    for name, entry in entries.items():
        if name in arrays:
            continue
        file = path / str(entry["file"])
        if file.name != str(entry["file"]):
            raise DatasetError(f"{path / MANIFEST}: {entry['file']!r} is not a file of this store")
        arrays[name] = open_array(file, entry["dtype"], tuple(entry["shape"]), entry["bytes"])
        checks[name] = partial(_check, file, str(entry["sha256"]))
    return CheckedArrays(arrays, checks, background)


def _open_shard(path: Path, background: bool) -> CheckedArrays:
    """Memory-maps the arrays of a shard."""
    manifest = current_manifest(read_manifest(path))
    return open_entries(path, manifest, manifest["arrays"], background)


def check_lengths(
    path: Path, entries: dict[str, Any], arrays: dict[str, Array], offsets: npt.NDArray[np.int64]
) -> None:
    """Checks that the arrays agree in length, so that no episode points outside a file."""
    if len(offsets) < 2 or offsets[0] != 0 or (np.diff(offsets) < 1).any():
        file = path / entries["offsets"]["file"]
        raise DatasetError(f"{file}: the episode offsets do not increase; make the store again")
    steps, episodes = int(offsets[-1]), len(offsets) - 1
    names = [n for n in arrays if n.startswith(OBSERVATIONS)]
    for name in [*names, "actions", "rewards", "returns_to_go"]:
        if len(arrays[name]) != steps:
            raise DatasetError(
                f"{path}: {name} has {len(arrays[name])} rows, but the episodes have {steps} "
                "steps; make the store again"
            )
    last = [n for n in arrays if n.startswith(LAST)]
    for name in [*last, "terminated", "truncated", "seeds"]:
        if len(arrays[name]) != episodes:
            raise DatasetError(
                f"{path}: {name} has {len(arrays[name])} rows, but there are {episodes} "
                "episodes; make the store again"
            )


def check_manifest(path: Path) -> None:
    """Compares the manifest with its digest; warns if a store of former versions has none.

    Raises:
        DatasetError: If they differ.
    """
    digest = path / MANIFEST_DIGEST
    if not digest.is_file():
        warnings.warn(
            f"{path} is of a version that kept no digest of {MANIFEST}: whether it is as it was "
            "written cannot be checked.",
            stacklevel=5,
        )
        return
    _check(path / MANIFEST, digest.read_text(encoding="utf-8", errors="replace")[:64])


def _check(file: Path, digest: str) -> None:
    if file_sha256(file) != digest:
        raise DatasetError(
            f"{file}: the contents changed after the store was made (their SHA-256 is not the one "
            "that was written with them); make the store again"
        )
