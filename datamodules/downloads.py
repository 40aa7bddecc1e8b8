"""Downloads of public data sets, which are resumed after an interruption."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from datamodules.disk_errors import explain_write_errors, make_folder, may_write
from datamodules.episodes import DatasetError
from datamodules.public_data import Remote
from datamodules.variables import environment_variable
from rate.advice import install
from rate.files import file_sha256, publish, write_atomic
from rate.locks import locked_folder

_CHUNK_BYTES = 1 << 20
_TIMEOUT = 60.0
_TRIES = 5
_MAGIC = {".hdf5": b"\x89HDF\r\n\x1a\n", ".gz": b"\x1f\x8b"}  # how files of a kind begin
_ELSEWHERE = "Name another folder with --root."
# What an interrupted connection raises.
_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)

OnBytes = Callable[[int, int | None], None]


def fetch(remote: Remote, folder: Path | str, on_bytes: OnBytes | None = None) -> Path:
    """Downloads a file unless it exists; resumes an interrupted download.

    An incomplete file has the suffix `.part`. The SHA-256 is kept beside the file in a `.sha256`
    file, as `sha256sum` writes them; an existing file is compared with it.

    Args:
        remote: The file.
        folder: The folder of data sets.
        on_bytes: Called with the bytes that are here, and the total if it is known.

    Returns:
        The path of the file.

    Raises:
        DatasetError: If it cannot be downloaded, its checksum is wrong, or an existing file has
            changed. The message says how to get it by hand.
    """
    path = Path(folder) / remote.path
    if path.is_file():
        _compare(path)
        return path
    make_folder(path.parent, DatasetError, str(path), _ELSEWHERE)
    with (
        explain_write_errors(DatasetError, str(path), f"{_ELSEWHERE} Or make room."),
        locked_folder(path.parent),
    ):
        if not path.is_file():  # another process may have downloaded it meanwhile
            _download(remote, path, on_bytes or (lambda done, total: None))
    return path


def _download(remote: Remote, path: Path, tell: OnBytes) -> None:
    """Downloads a file under another name until it is complete and its checksum is right."""
    part = path.with_name(f"{path.name}.part")
    checksum, reason = None, "the connection is cut again and again"
    for _ in range(_TRIES):
        before = part.stat().st_size if part.exists() else 0
        try:
            checksum = _receive(remote.url, part, tell)
            break
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            raise _by_hand(remote, path, reason) from error
        except _NETWORK as error:
            reason = str(getattr(error, "reason", error))
            if not part.exists() or part.stat().st_size == before:  # nothing came: no connection
                raise _by_hand(remote, path, reason) from error
    else:
        raise _by_hand(remote, path, reason)
    _version_file(part).unlink(missing_ok=True)
    _check_md5(part, checksum)
    _check_kind(part, path)
    _record(path, part)
    publish(part, path)


def fetch_minari(name: str, folder: Path | str) -> Path:
    """Downloads a Minari data set with Minari itself, unless it exists locally.

    An interrupted download is kept in a hidden folder and resumed.

    Raises:
        DatasetError: If it cannot be downloaded; says how to get it by hand.
    """
    import minari

    folder = Path(folder).absolute()
    path, unfinished = folder / name, folder / ".downloading"
    if path.is_dir():
        return path
    configured = os.environ.get("MINARI_DATASETS_PATH")
    if configured and (Path(configured) / name / "data").is_dir():  # where training looks as well
        return Path(configured) / name
    for missing in (unfinished, path.parent):
        make_folder(missing, DatasetError, str(path), _ELSEWHERE)
    try:
        with (
            explain_write_errors(DatasetError, str(path), f"{_ELSEWHERE} Or make room."),
            environment_variable("MINARI_DATASETS_PATH", str(unfinished)),
        ):
            minari.download_dataset(name, force_download=True)  # resumes a partial download
            publish(unfinished / name, path)
    except DatasetError:
        raise
    except ImportError as error:
        raise DatasetError(
            f"{name}: Minari downloads with a package that is not installed ({error}); "
            f"{install('minari')}"
        ) from error
    except Exception as error:  # whatever the hub's client of the day raises
        repository = name.partition("/")[0]
        remote = Remote(f"https://huggingface.co/datasets/farama-minari/{repository}", name)
        raise _by_hand(remote, path, str(error) or type(error).__name__) from error
    return path


def _receive(url: str, part: Path, tell: OnBytes) -> str | None:
    """Appends the missing part of a file; returns its MD5 if the server gives it."""
    done = part.stat().st_size if part.exists() else 0
    version, headers = _version_file(part), {"Range": f"bytes={done}-"} if done else {}
    if done and version.is_file():  # of another version the whole is sent
        headers["If-Range"] = version.read_text(encoding="utf-8")
    _check_secure(url)
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if whole == str(done):
                return None  # all of it was here
            part.unlink()  # another file: from the beginning
            return _receive(url, part, tell)
        raise
    with response:
        _check_secure(response.url)  # after redirections
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = done if resumed else 0
        if not resumed and (tag := response.headers.get("ETag", "")).startswith('"'):
            write_atomic(version, tag)
        left = response.headers.get("Content-Length")
        total = None if left is None else done + int(left)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                tell(done, total)
        if total is not None and done < total:
            raise ConnectionError(f"cut off after {done} of {total} bytes")
        hashes: str = response.headers.get("x-goog-hash", "")
    return next((h[len("md5=") :] for h in hashes.split(",") if h.startswith("md5=")), None)


def _version_file(part: Path) -> Path:
    """Returns the file of the server's name (`ETag`) for the version that is being received."""
    return part.with_name(f"{part.name}.etag")


def _check_secure(url: str) -> None:
    """Refuse addresses that anyone between here and there could answer for."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise DatasetError(f"{url} is not read, as it is not https; get it by hand if you trust it")


def _check_kind(part: Path, path: Path) -> None:
    """Refuse what is no file of its kind, such as the page of a network's sign-in."""
    magic = next((magic for end, magic in _MAGIC.items() if path.name.endswith(end)), b"")
    with part.open("rb") as file:
        head = file.read(len(magic))
    if head != magic:
        part.unlink()
        raise DatasetError(
            f"{path.name}: the server sent something else, perhaps a page to sign in; removed. "
            "Open its address in a browser, then try again"
        )


def _check_md5(part: Path, expected: str | None) -> None:
    if expected is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in _chunks(part):
        digest.update(chunk)
    if base64.b64encode(digest.digest()).decode() != expected:
        part.unlink()
        raise DatasetError(f"{part}: not what the server has (MD5 differs); removed, try again")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _side_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _record(path: Path, part: Path) -> None:
    write_atomic(_side_file(path), f"{file_sha256(part)}  {path.name}\n")


def _compare(path: Path) -> None:
    """Compares a file with the checksum that was kept when it was downloaded, if any."""
    side = _side_file(path)
    if not side.is_file():  # put there by hand, perhaps in a folder that may only be read
        if may_write(side.parent):
            _record(path, path)
    elif side.read_text(encoding="utf-8").split()[:1] != [file_sha256(path)]:
        raise DatasetError(
            f"{path}: changed since it was downloaded (SHA-256 differs from {side.name}); delete "
            "both and download it again"
        )


def _by_hand(remote: Remote, path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{path.name} cannot be downloaded: {reason}. Get it on another machine from\n  "
        f"{remote.url}\nand put it here as\n  {path.absolute()}\n{remote.note}".rstrip()
    )
