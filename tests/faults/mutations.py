"""Changes to the bytes of files: flipped bits, cuts, insertions, numbers that overflow.

Compressed and checksummed parts are opened, changed inside and closed again, since a change outside
would only meet the checksum.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import zipfile
from collections.abc import Callable

from tests.datamodules.tfrecords import record

Mutate = Callable[[bytes, random.Random], bytes]
_LARGE = (2**63 - 1, -1, 2**31, 2**32, 2**40, -(2**63), 2**33)
_WORDS = (
    *("null", "-1", "1e999", "9223372036854775808", '"x"', "[]", "{}", "true", "1" * 400, '"Box"'),
    *("0", "3.5", '["a"]', "[[[]]]", "NaN", "", ",", "\n"),
)


def in_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changes up to sixteen places; half of them are in the first 600 bytes, a format's header."""
    content = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        if content:
            end = len(content) if rng.random() < 0.5 else min(len(content), 600)
            rng.choice(_CHANGES)(content, rng.randrange(end), rng)
    return bytes(content)


def _flip(content: bytearray, at: int, rng: random.Random) -> None:
    content[at] ^= 1 << rng.randrange(8)


def _set(content: bytearray, at: int, rng: random.Random) -> None:
    content[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0xFE])


def _cut(content: bytearray, at: int, rng: random.Random) -> None:
    del content[at:]


def _remove(content: bytearray, at: int, rng: random.Random) -> None:
    del content[at : at + rng.choice([1, 2, 8, 100])]


def _insert(content: bytearray, at: int, rng: random.Random) -> None:
    content[at:at] = bytes(rng.choice([1, 4, 64]))


def _overflow(content: bytearray, at: int, rng: random.Random) -> None:
    content[at : at + 8] = struct.pack("<q", rng.choice(_LARGE))


def _copy(content: bytearray, at: int, rng: random.Random) -> None:
    start, count = rng.randrange(len(content)), rng.choice([4, 16, 256])
    content[at : at + count] = content[start : start + count]


_CHANGES = (_flip, _set, _cut, _remove, _insert, _overflow, _copy)


def in_text(data: bytes, rng: random.Random) -> bytes:
    """Replaces numbers, words and texts by those of other types and sizes."""
    text = data.decode()
    for _ in range(rng.choice([1, 1, 2, 3])):
        found = rng.choice(list(re.finditer(r'-?\d+\.?\d*|"[^"]*"|\w+', text)) or [None])
        if found is not None:
            text = text[: found.start()] + rng.choice(_WORDS) + text[found.end() :]
    return text.encode()


def in_gzip(data: bytes, rng: random.Random) -> bytes:
    return gzip.compress(in_bytes(gzip.decompress(data), rng), 1)


def in_zip(data: bytes, rng: random.Random) -> bytes:
    """Changes one member of an archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(made, "w") as archive:
        changed = rng.choice(source.namelist())
        for member in source.infolist():
            content = source.read(member)
            content = in_bytes(content, rng) if member.filename == changed else content
            archive.writestr(member.filename, content, member.compress_type)
    return made.getvalue()


def in_record(data: bytes, rng: random.Random) -> bytes:
    """Changes the first message of a TFRecord file."""
    length = struct.unpack("<Q", data[:8])[0]
    return record(in_bytes(data[12 : 12 + length], rng)) + data[16 + length :]
