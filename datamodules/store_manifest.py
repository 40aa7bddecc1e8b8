"""The manifest of a store: `manifest.json`, and the files that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datamodules.episodes import Array, DatasetError
from datamodules.npy import file_sha256, open_array
from datamodules.store_files import FORMAT, MANIFEST, SCHEMA_VERSION
from rate.advice import command


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
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{file}: not valid JSON ({error}); make the store again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"{file}: not the manifest of a trajectory store; check the path")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise DatasetError(
            f"{file}: schema version {manifest.get('schema_version')}, but this program reads "
            f"version {SCHEMA_VERSION}; make the store again from its source"
        )
    return manifest


def open_entry(path: Path, entry: dict[str, Any], verify: bool) -> Array:
    """Memory-maps an array of the manifest, whose file must be directly in the store."""
    name = str(entry["file"])
    if Path(name).name != name:
        raise DatasetError(f"{path / MANIFEST}: {name!r} is not a file of this store")
    file = path / name
    array = open_array(file, entry["dtype"], tuple(entry["shape"]), entry["bytes"])
    if verify and file_sha256(file) != entry["sha256"]:
        raise DatasetError(
            f"{file}: the contents changed (SHA-256 differs from the manifest's); "
            "make the store again"
        )
    return array
