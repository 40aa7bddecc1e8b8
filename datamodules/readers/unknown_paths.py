"""Describes a path that no reader can open, for error messages, and finds data nearby."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

_HEAD_BYTES = 4096
_LFS = b"version https://git-lfs.github.com/spec/"
_OF_DATA = (".hdf5", ".h5", ".npz", ".pkl", ".parquet", ".arrow", ".gz")
_WITH_A_MARK = "(a folder with "  # in the name of formats that a marker file identifies
_MOST_ENTRIES = 10_000  # of a folder and those in it
_MOST_FILES = 500  # of a folder that are looked at
_ARCHIVES = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"7z\xbc\xaf": ("7-Zip", "7z x"),
    b"Rar!": ("RAR", "unrar x"),
}
OWN_ARRAYS = (
    "Arrays of your own can be read from an .npz file: numpy.savez(FILE, observations=..., "
    "actions=..., rewards=..., terminated=..., truncated=...), with a row for each step"
)


def find_pipe(path: Path) -> Path | None:
    """Returns a pipe, socket or device at a path or in a folder; reading one may never end."""
    waiting, seen = [path], 0
    while waiting and seen < _MOST_ENTRIES:
        place = waiting.pop()
        if place.is_dir():
            with suppress(OSError):
                waiting += islice(place.iterdir(), _MOST_ENTRIES)
        elif place.exists() and not place.is_file():
            return place
        seen += 1
    return None


def describe(path: Path) -> str | None:
    """Returns what a path without trajectories is and what to do; None if unknown."""
    if path.is_dir():
        return None if any(path.iterdir()) else "an empty folder; check the path, or get the data"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return _not_downloaded(path, head) or _packed(path, head) or _other(path, head)


def not_downloaded(path: Path) -> tuple[Path, str] | None:
    """Returns the first file that was not properly downloaded, and what is there instead."""
    if path.is_dir():
        return missing_among(islice(_files(path), _MOST_FILES))
    with path.open("rb") as file:
        found = _not_downloaded(path, file.read(_HEAD_BYTES))
    return None if found is None else (path, found)


def missing_among(files: Iterable[Path], largest: int | None = None) -> tuple[Path, str] | None:
    """As `not_downloaded`, of some files; those of more bytes than `largest` are not opened."""
    for file in files:
        if largest is not None and file.stat().st_size > largest:
            continue
        with file.open("rb") as opened:
            found = _not_downloaded(file, opened.read(_HEAD_BYTES), alone=False)
        if found is not None:
            return file, found
    return None


def unreadable(path: Path) -> Path | None:
    """Returns the first file or folder at a path that this user may not read."""
    if not os.access(path, os.R_OK):
        return path
    files = [path] if path.is_file() else islice(_files(path), _MOST_FILES)
    return next((file for file in files if not os.access(file, os.R_OK)), None)


def above(path: Path, known: Callable[[Path], str | None]) -> str | None:
    """Returns a message if a path is part of a data set one to three folders above it.

    Args:
        path: A file or folder that is not a data set.
        known: Returns what the data set at a path is, or None.
    """
    for folder in islice(path.absolute().parents, 3):
        what = None if folder.parent == folder else known(folder)
        if what is not None and _WITH_A_MARK in what:
            return f"no data set itself, but a part of {folder}: {what}; name that folder"
    return None


def inside(path: Path, known: Callable[[Path], str | None]) -> str | None:
    """Returns a message if a folder holds data sets one or two folders below it."""
    for pattern in ("*", "*/*") if path.is_dir() else ():
        items = islice(sorted(path.glob(pattern)), _MOST_FILES)
        found = [(item, what) for item in items if (what := known(item)) is not None]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return f"no data set itself, but in it is {found[0][0]}{more}: {found[0][1]}; name that"
    return None


def _not_downloaded(path: Path, head: bytes, alone: bool = True) -> str | None:
    """Returns what is in the place of a file that was not downloaded."""
    if not head and (alone or path.suffix in _OF_DATA):
        return "an empty file; get or make it again"
    if head.startswith(_LFS):
        size = next((line[5:] for line in head.splitlines() if line.startswith(b"size ")), b"?")
        return (
            f"a Git LFS pointer in the place of a file of {size.decode(errors='replace')} bytes; "
            "get the file itself with: git lfs pull"
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML) in the place of the file; get it again by its direct link"
    if start.startswith(b"<?xml") and b"<error>" in start:
        return f"an error of a server (XML) in the place of the file: {_text(head)}; get it again"
    if path.suffix not in (".json", ".jsonl") and start.startswith(b"{") and _is_json(path):
        return f"a text (JSON) in the place of the file: {_text(head)}; get it again"
    return None


def _packed(path: Path, head: bytes) -> str | None:
    """Returns what an archive is and how to unpack it."""
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return f"a file of PyTorch's (torch.save), which is not read. {OWN_ARRAYS}"
        held = ", ".join(names[:5]) or "nothing"
        return f"a zip archive with {held}; unpack it with: unzip {path.name}"
    if tarfile.is_tarfile(path):
        return f"a tar archive; unpack it with: tar xf {path.name}"
    for magic, (name, command) in _ARCHIVES.items():
        if head.startswith(magic):
            return f"compressed with {name}; unpack it with: {command} {path.name}"
    return None


def _other(path: Path, head: bytes) -> str | None:
    if head.startswith(b"\x93NUMPY"):
        return f"a single array of NumPy's. {OWN_ARRAYS}"
    if path.suffix.lower() in (".h5", ".hdf5", ".hdf"):
        return "not an HDF5 file, though its name says so; get or make it again"
    if path.suffix == ".npz":
        return "not an .npz file, though its name says so; get or make it again"
    if path.suffix == ".part":
        return "a download that is not finished; the same download goes on with it"
    return None


def first_words(path: Path) -> str | None:
    """Returns the beginning of a file that is a text."""
    with path.open("rb") as file:
        head = file.read(64)
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else f"a text that begins with {text[:40]!r}"


def _is_json(path: Path) -> bool:
    if path.stat().st_size > 1 << 20:
        return False
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _text(head: bytes) -> str:
    return " ".join(head[:120].decode("utf-8", "replace").split())


def _files(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder and its subfolders."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            yield Path(parent, name)
