"""Atomic, durable writes: a file or folder is complete or absent, also after a power failure.

All code that writes a result uses this module. Content is written to a draft, a temporary name
beside the final one. `publish` flushes the draft to the disk (`fsync`) and renames it.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20
_DAY_S = 86_400.0
_TOKEN = secrets.token_hex(8)
_SETTLED_NS = 2_000_000_000  # file times are coarse: a change so soon may not show in them
_DIGESTS: dict[tuple[str, int, int, int, int], str] = {}  # by the path and state of a file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields the path of a file's draft, which the block writes; publishes it at the end.

    An existing file at `path` is replaced after the new content is on the disk. If the block
    raises, the draft is removed and `path` is unchanged.

    Raises:
        OSError: If the draft cannot be made durable or renamed, for example on a full disk.
    """
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    _remove_litter(path)
    try:
        yield draft
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes atomically.

    A symbolic link at the path of the draft is not followed.

    Raises:
        OSError: If the folder is missing or cannot be written, for example on a full disk.
    """
    with atomic_path(path) as draft, draft.open("xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically.

    Raises:
        ValueError: If `value` has NaN or infinity, which are not valid JSON.
        OSError: As `write_atomic`.
    """
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def publish(draft: Path, path: Path) -> None:
    """Flush a finished file, or a folder with its files, to the disk and rename it to `path`.

    Raises:
        OSError: If the flush or the rename fails, for example on a full disk.
    """
    if draft.is_dir():
        for item in (item for item in draft.rglob("*") if item.is_file()):
            sync(item)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def ensure_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it exists; it is durable then.

    Raises:
        OSError: If it cannot be made, for example where a file has its name.
    """
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk; no-op for folders on Windows."""
    is_posix = os.name == "posix"
    if path.is_dir() and not is_posix:
        return
    descriptor = os.open(path, os.O_RDONLY if is_posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def draft_of(path: Path) -> Path:
    """Returns the temporary path of a file that this process is writing.

    Nobody can guess it: another user of a shared folder could make a link of that name.
    """
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{_TOKEN}")


def _remove_litter(path: Path) -> None:
    """Remove drafts of a file that processes killed long ago have left."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
        with suppress(OSError):  # another user's, or removed meanwhile
            if time.time() - left.lstat().st_mtime > _DAY_S:
                left.unlink()


def remove_drafts(folder: Path) -> None:
    """Remove the drafts that killed processes left in `folder`.

    No other process may write to the folder at the same time: its drafts would be removed too.
    """
    for draft in folder.glob(".*.tmp-*"):
        if draft.is_file() or draft.is_symlink():
            draft.unlink()


def read_small(path: Path, most: int = 1 << 26) -> str:
    """Returns the UTF-8 text of a regular file; a pipe or a device would not end.

    Raises:
        OSError: If it is missing, no regular file, larger than `most` bytes, or cannot be read.
        UnicodeDecodeError: If it is not UTF-8.
    """
    size = _state_of_regular(path).st_size
    if size > most:
        reason = f"{size:,} bytes are too many for what it should hold"
        raise OSError(errno.EFBIG, reason, str(path))
    return path.read_text(encoding="utf-8")


def load_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        OSError: As `read_small`.
        ValueError: If it is not JSON in UTF-8, or is nested too deeply.
    """
    try:
        return json.loads(read_small(path))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def regular_size(path: Path) -> int:
    """Returns the size of a regular file in bytes.

    Raises:
        OSError: If it is missing, a pipe or a device, or cannot be read.
    """
    return _state_of_regular(path).st_size


def _state_of_regular(path: Path) -> os.stat_result:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return state


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal, read in chunks.

    A file is read once per process, size and modification time.

    Raises:
        OSError: If the file is missing, no regular file, or cannot be read.
    """
    state = _state_of_regular(path)
    key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if key not in _DIGESTS:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) < _SETTLED_NS:
            return digest.hexdigest()
        _DIGESTS[key] = digest.hexdigest()
    return _DIGESTS[key]
