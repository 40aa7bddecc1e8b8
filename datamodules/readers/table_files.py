"""Parquet and Arrow files with named columns: one, or a folder of them."""

from __future__ import annotations

import re
from pathlib import Path

from datamodules.options import Options
from datamodules.readers.natural_order import natural_key
from datamodules.readers.tables import ARROW, PARQUET, open_table
from datamodules.source import Source

_STREAM = b"\xff\xff\xff\xff"
_SUFFIXES = (".parquet", ".arrow", ".feather")
# How Hugging Face's repositories and caches call their files: NAME-train-00000-of-00002.
_SPLIT = re.compile(r"(?:.*-)?(?P<split>[^-]+)-\d{5}-of-\d{5}")


def is_table(path: Path) -> bool:
    """Whether a path is such a file, or a folder of them; they may be in its folder `data`."""
    return bool(_files(path))


def open_table_files(path: Path, options: Options | None = None) -> Source:
    """Opens a file as a source, or the files of a folder in the order of their numbers.

    Args:
        path: The file or folder. Of files that are named as splits, those of `train` are read.
        options: The options of reading the data.

    Raises:
        DatasetError: As `open_table`.
    """
    files, notes = _files(path), []
    splits = {file: found["split"] for file in files if (found := _SPLIT.fullmatch(file.stem))}
    others = sorted(set(splits.values()) - {"train"})
    if "train" in splits.values() and others:
        files = [file for file in files if splits.get(file) == "train"]
        notes.append(f"only the split train is read; {', '.join(others)} are left out")
    return open_table("table", path, tuple(files), options, tuple(notes))


def _files(path: Path) -> list[Path]:
    """Returns the files at a path, all of one kind, as others may be copies of these."""
    if path.is_dir():
        for folder in (path, path / "data"):
            for suffix in _SUFFIXES:
                found = [file for file in folder.glob(f"*{suffix}") if file.is_file()]
                if found:
                    return sorted(found, key=lambda file: natural_key(file.name))
        return []
    if not path.is_file():
        return []
    with path.open("rb") as file:
        magic = file.read(len(ARROW))
    known = magic.startswith(PARQUET) or magic == ARROW
    stream = magic.startswith(_STREAM) or not magic
    return [path] if known or (stream and path.suffix in _SUFFIXES) else []
