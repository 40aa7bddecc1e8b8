"""TFRecord files, encoded by hand."""

from __future__ import annotations

import io
import struct

from PIL import Image

from datamodules.readers.tfrecord import masked_crc32c


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values, packed):
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if isinstance(values[0], float):
        each = [struct.pack("<f", value) for value in values]
        packs = field(1, b"".join(each)) if packed else b"".join(b"\x0d" + value for value in each)
        return field(2, packs)
    each = [varint(value) for value in values]
    return field(3, field(1, b"".join(each)) if packed else b"".join(b"\x08" + v for v in each))


def example(features, packed=True):
    entries = (
        field(1, field(1, name.encode()) + field(2, feature(values, packed)))
        for name, values in features.items()
    )
    return field(1, b"".join(entries))


def record(data):
    length = struct.pack("<Q", len(data))
    return (
        length
        + struct.pack("<I", masked_crc32c(length))
        + data
        + struct.pack("<I", masked_crc32c(data))
    )


def png(frame):
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "PNG")
    return data.getvalue()
