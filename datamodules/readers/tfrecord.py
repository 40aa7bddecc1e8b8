"""TFRecord files of `tf.train.Example` messages, read without TensorFlow.

A file is a series of records: length (8 bytes), checksum of the length, data, checksum of the data.
It may be gzipped. The messages are parsed by protobuf; a message maps names to lists of bytes,
floats or integers. Only the checksum of the length is compared: the data have checksums of their
own (gzip's, PNG's).
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
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from datamodules.episodes import Array, DatasetError
from datamodules.readers.limits import MOST_DEFLATED, check_at_once

Feature = list[bytes] | Array
_NAME = re.compile(r".*(-\d{5}-of-\d{5}|\.tfrecords?)(\.gz)?")
# tensorflow/core/example/example.proto and feature.proto, as a FileDescriptorProto.
_EXAMPLE_PROTO = """
name: "example.proto" package: "tf" syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".tf.BytesList" }
  field { name: "float_list" number: 2 type: TYPE_MESSAGE type_name: ".tf.FloatList" }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".tf.Int64List" }
}
message_type {
  name: "Features"
  field {
    name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
    type_name: ".tf.Features.FeatureEntry"
  }
  nested_type {
    name: "FeatureEntry"
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".tf.Feature" }
    options { map_entry: true }
  }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".tf.Features" }
}
"""


def record_files(path: Path) -> list[Path]:
    """Returns the TFRecord shards that a path is or holds, by their names, in order."""
    if path.is_file():
        return [path] if _NAME.fullmatch(path.name) else []
    if not path.is_dir():
        return []
    return sorted(f for f in path.iterdir() if f.is_file() and _NAME.fullmatch(f.name))


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a file, one in memory at a time.

    Raises:
        DatasetError: If it is damaged, truncated or larger than `MOST_AT_ONCE`; names the record.
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
                if masked_crc32c(head[:8]) != checksum:
                    raise ValueError("the checksum of its length is wrong")
                check_at_once(f"{path}, record {number}", length)
                if length > path.stat().st_size * (MOST_DEFLATED if packed else 1):
                    raise EOFError("the file ends inside of it")
                data, after = file.read(length), file.read(4)
                if len(data) < length or len(after) < 4:
                    raise EOFError("the file ends inside of it")
                yield data
                number += 1
    except DatasetError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DatasetError(f"{path}, record {number}: damaged or truncated ({error})") from error


def masked_crc32c(data: bytes) -> int:
    """Returns the checksum of TFRecord files: CRC-32C (Castagnoli), rotated and shifted."""
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


def parse_example(record: bytes) -> dict[str, Feature]:
    """Returns the features of a `tf.train.Example`: lists of bytes, float32 or int64 arrays.

    Raises:
        ValueError: If the record is none.
    """
    try:
        features = _example_class().FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return {name: _values(feature) for name, feature in features.items()}


def _values(feature: Any) -> Feature:
    if feature.HasField("float_list"):
        return np.array(feature.float_list.value, np.float32)
    if feature.HasField("int64_list"):
        return np.array(feature.int64_list.value, np.int64)
    return list(feature.bytes_list.value)


@lru_cache(maxsize=1)
def _example_class() -> Any:
    """Returns the class of `tf.train.Example`.

    It is declared in a pool of its own, as TensorFlow, where it is imported, declares it as well.
    """
    file = text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))
