"""TFRecord files of `tf.train.Example` messages, read without TensorFlow.

A file is a series of records: length (8 bytes), checksum of the length, data, checksum of the data;
perhaps all of it gzipped. A message maps names to lists of bytes, floats or integers (protocol
buffers: `Example.features = 1`, `Features.feature = 1`, `Feature.{bytes,float,int64}_list`). The
checksum of the length tells at once whether a file is what it should be; what the data hold has
checksums of its own (gzip's, PNG's).
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from datamodules.episodes import Array, DatasetError

Feature = list[bytes] | Array
_NAME = re.compile(r".*(-\d{5}-of-\d{5}|\.tfrecords?)(\.gz)?")
_MOST_BYTES = 1 << 31  # of a record; TensorFlow writes no larger message
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def record_files(path: Path) -> list[Path]:
    """The files named as shards of records that a path is, or has in it, in their order."""
    if path.is_file():
        return [path] if _NAME.fullmatch(path.name) else []
    if not path.is_dir():
        return []
    return sorted(f for f in path.iterdir() if f.is_file() and _NAME.fullmatch(f.name))


def read_records(path: Path) -> Iterator[memoryview]:
    """The records of a file, one in memory at a time.

    Raises:
        DatasetError: If it is damaged or truncated; names the record.
    """
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
            while head := file.read(12):
                if len(head) < 12:
                    raise EOFError("the file ends inside of it")
                length, checksum = struct.unpack("<QI", head)
                if masked_crc32c(head[:8]) != checksum or length > _MOST_BYTES:
                    raise ValueError("the checksum of its length is wrong")
                data = file.read(length + 4)
                if len(data) < length + 4:
                    raise EOFError("the file ends inside of it")
                yield memoryview(data)[:length]
                number += 1
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DatasetError(f"{path}, record {number}: damaged or truncated ({error})") from error


def masked_crc32c(data: bytes) -> int:
    """The checksum of records: CRC-32C (Castagnoli), rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _crc_table()[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [(value >> 1) ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


def parse_example(record: memoryview) -> dict[str, Feature]:
    """The features of a `tf.train.Example`: lists of bytes, float32 or int64 arrays.

    Raises:
        ValueError: If it is none.
    """
    features: dict[str, Feature] = {}
    for features_field, message in _fields(record):
        if features_field != 1:
            continue
        for entry_field, entry in _fields(_message(message)):
            if entry_field == 1:
                parts = dict(_fields(_message(entry)))
                features[bytes(_message(parts[1])).decode()] = _feature(_message(parts[2]))
    return features


def _feature(message: memoryview) -> Feature:
    for kind, values in _fields(message):
        fields = [value for field, value in _fields(_message(values)) if field == 1]
        if kind == 1:
            return [bytes(_message(value)) for value in fields]
        if kind == 2:  # packed, or one by one
            return np.frombuffer(b"".join(bytes(_message(value)) for value in fields), "<f4")
        if kind == 3:
            parts = [
                np.array([value], np.uint64) if isinstance(value, int) else _varints(value)
                for value in fields
            ]
            return np.concatenate([np.zeros(0, np.uint64), *parts]).astype(np.int64)
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The number and the value of each field of a protocol buffers message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _LENGTH:
            size, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if position + size > len(message):
            raise ValueError("a field goes beyond the end of its message")
        yield key >> 3, message[position : position + size]
        position += size


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number where there should be a message")
    return value


def _varints(data: memoryview) -> Array:
    """Packed integers, `(N,)` uint64: groups of 7 bits, of which all but an integer's last go on.

    Raises:
        ValueError: If one has no end.
    """
    groups = np.frombuffer(data, np.uint8)
    if not len(groups):
        return np.zeros(0, np.uint64)
    ends = np.flatnonzero(groups < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if not len(ends) or ends[-1] != len(groups) - 1 or (ends - starts).max() > 9:
        raise ValueError("a number has no end")
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    bits = (groups & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(bits, starts)


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """An integer in groups of 7 bits, and the position after it."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a number has no end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
