"""Files changed at random are read, or refused by an error that names them: no crash, no hang.

A few seeded changes of each format here; `pytest tests/faults/test_fuzz.py --fuzz-minutes 30` goes
on with others and prints how many there were.
"""

from __future__ import annotations

import itertools
import os
import random
import resource
import select
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rate.errors import UserError
from tests.faults.formats import FILE_FORMATS, FileFormat
from trainers.errors import TrainingError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FILES = 8  # of each format, without --fuzz-minutes
MOST_BYTES = 1 << 30  # that reading a file of a few kilobytes may add to the process
MOST_SECONDS = 20.0  # and that it may take


def changed_copy(format_: FileFormat, original: Path, folder: Path, seed: str) -> Path:
    """Copies a file or a folder, changes one of its files and returns the copy."""
    rng, copy = random.Random(seed), folder / original.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if original.is_dir():
        shutil.copytree(original, copy)
    else:
        shutil.copy(original, copy)
    files = sorted(f for f in copy.rglob(format_.files) if f.is_file()) or [copy]
    file = rng.choice(files)
    file.write_bytes(rng.choice(format_.changes)(file.read_bytes(), rng))
    return copy


def outcome(format_: FileFormat, path: Path) -> str:
    """Reads a file; returns `read`, `refused`, or what is wrong with the error."""
    try:
        format_.read(path)
    except (UserError, TrainingError) as error:
        return "refused" if str(path) in str(error) else f"an error without the path: {error}"
    except BaseException as error:  # noqa: BLE001 (any other error is a finding)
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[:-5:-1])
        return f"{type(error).__name__} at {where}: {error}"
    return "read"


def read_in_a_process(format_: FileFormat, original: Path, folder: Path, first: int) -> Any:
    """Reads changed files from number `first` on in a fork of limited memory.

    Returns:
        Its process number, and a pipe of lines: a number as its file is begun, and the outcome.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, os.fdopen(reader, "rb", buffering=0)
    try:
        warnings.simplefilter("ignore")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in itertools.count(first):
            copy = changed_copy(format_, original, folder, f"{original.name} {number}")
            os.write(writer, f"{number}\n".encode())
            line = ascii(outcome(format_, copy))[:400]
            os.write(writer, f"{line}\n".encode())
    finally:
        os._exit(1)


def fuzz(format_: FileFormat, folder: Path, until: Any) -> tuple[Counter[str], dict[str, int]]:
    """Reads changed files until `until(count)`.

    Returns:
        How many were read and refused; the failures, with the number of the first file of each.
    """
    (folder / "original").mkdir()
    original = format_.make(folder / "original")
    format_.read(original)
    counts: Counter[str] = Counter()
    failures: dict[str, int] = {}
    done = 0
    while not until(done):
        process, pipe = read_in_a_process(format_, original, folder / "changed", done)
        rest = b""
        while not until(done):
            ready = select.select([pipe], [], [], MOST_SECONDS)[0]
            received = pipe.read(65536) if ready else b""
            *lines, rest = (rest + received).split(b"\n")
            for line in (text for text in lines if text.startswith(b"'")):
                found = line.decode()[1:-1]
                done += 1
                counts[found if found in ("read", "refused") else "failed"] += 1
                if found not in ("read", "refused"):
                    failures.setdefault(found, done - 1)
            if not received:
                failures.setdefault("it hangs" if not ready else "the process dies", done)
                counts["failed"] += 1
                done += 1
                break
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        pipe.close()
    return counts, failures


@pytest.mark.parametrize("name", sorted(FILE_FORMATS))
def test_changed_files_are_read_or_refused_by_name(
    name: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = 60 * pytestconfig.getoption("fuzz_minutes") / len(FILE_FORMATS)
    end = time.monotonic() + seconds
    counts, failures = fuzz(
        FILE_FORMATS[name],
        tmp_path,
        lambda done: time.monotonic() > end if seconds else done >= FILES,
    )
    print(f"{name}: {dict(counts)}")
    assert not failures, "\n".join(f"file {number}: {text}" for text, number in failures.items())


def test_a_reader_that_raises_hangs_or_dies_is_a_failure(tmp_path: Path, monkeypatch) -> None:
    """The findings of the test above are seen at all."""
    monkeypatch.setattr(f"{__name__}.MOST_SECONDS", 0.5)

    def read(path: Path) -> None:
        if path.parent.name == "original":
            return
        content = path.read_bytes()
        if len(content) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(content) == 2:
            time.sleep(1000)
        if len(content) == 3:
            bytearray(2 * MOST_BYTES)
        raise UserError(f"{path}: refused" if len(content) == 4 else "refused")

    def make(folder: Path) -> Path:
        (folder / "x").write_bytes(b"")
        return folder / "x"

    def next_length(data: bytes, rng: random.Random) -> bytes:
        return bytes(rng.randrange(1, 6))

    counts, failures = fuzz(
        FileFormat(make, read, changes=(next_length,)), tmp_path, lambda n: n > 30
    )
    assert counts["refused"]
    assert {text.split(":")[0].split(" at ")[0] for text in failures} == {
        "it hangs",
        "the process dies",
        "MemoryError",
        "an error without the path",
    }
