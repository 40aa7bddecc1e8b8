"""Small files that claim to be large are refused by name, before memory is taken for them."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules import DatasetError
from datamodules.readers import limits
from datamodules.readers.hdf5 import hdf5_file, hdf5_item
from datamodules.readers.images import decode_image
from datamodules.readers.npz import open_npz
from datamodules.readers.pickles import load_pickle
from datamodules.readers.tfrecord import masked_crc32c, read_records
from datamodules.store_files import MANIFEST
from datamodules.tmaze import generate_tmaze
from rate.errors import WeightsError
from rate.weights import DESCRIPTION, SavedModel, load_model, save_model
from tests.datamodules import library_samples
from tests.digests import remove_from_model, renew_store
from tests.factories import make_model, make_spec
from tests.faults.formats import read_data

MOST_BYTES = 1 << 26  # that reading any of them allocates


def png(path: Path) -> None:
    """13,000 x 13,000 pixels with four channels: fewer than Pillow refuses itself."""
    data = bytearray(library_samples.png_bytes(np.zeros((2, 2, 4), np.uint8)))
    data[16:24] = struct.pack(">II", 13_000, 13_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    decode_image(path.read_bytes(), str(path))


def tfrecord(path: Path) -> None:
    length = struct.pack("<Q", 1 << 30)
    path.write_bytes(length + struct.pack("<I", masked_crc32c(length)))
    list(read_records(path))


def gzipped_tfrecord(path: Path) -> None:
    length = struct.pack("<Q", 1 << 28)
    path.write_bytes(gzip.compress(length + struct.pack("<I", masked_crc32c(length)) + bytes(999)))
    list(read_records(path))


def hdf5_chunk(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10,), "f4", maxshape=(None,), chunks=(1 << 28,))
    with hdf5_file(path) as file:
        hdf5_item(file, "x")


def npz(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "available_memory", lambda: 10_000)
        np.savez_compressed(path, x=np.zeros(10_001, np.uint8))
        with open_npz(path) as opened:
            opened.array("x")


def gzipped_pickle(path: Path) -> None:
    content = b"\x80\x04]\x8e" + struct.pack("<Q", 1 << 40)
    path.write_bytes(gzip.compress(content))
    load_pickle(path)


def _tuples(path: Path, nested: bytes) -> None:
    """A dictionary whose key is a tuple; hashing it visits every tuple in it."""
    path.write_bytes(b"\x80\x04}N\x85" + nested + b"Ns.")
    load_pickle(path)


def doubled_tuples(path: Path) -> None:
    _tuples(path, b"2\x86" * 40)


def memoized_tuples(path: Path) -> None:
    _tuples(path, b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(40)))


def deep_tuples(path: Path) -> None:
    _tuples(path, b"\x85" * 200_000)


def store_space(path: Path) -> None:
    store = generate_tmaze(path.parent / "data", 5, num_episodes=2)
    manifest = json.loads((store / MANIFEST).read_text())
    manifest["environment"]["observation_space"]["shape"] = [1 << 36]
    (store / MANIFEST).write_text(json.dumps(manifest))
    renew_store(store)
    path.symlink_to(store)
    read_data(path)


def _model(path: Path, change: Callable[[dict], None]) -> None:
    save_model(SavedModel(make_model("rate"), make_spec()), path)
    remove_from_model(path)
    description = json.loads((path / DESCRIPTION).read_text())
    change(description)
    (path / DESCRIPTION).write_text(json.dumps(description))
    load_model(path)


def model_layers(path: Path) -> None:
    _model(path, lambda description: description["model"].update(num_layers=20_000))


def model_width(path: Path) -> None:
    _model(path, lambda description: description["model"].update(d_model=40_000))


def model_tokens(path: Path) -> None:
    _model(path, lambda description: description["model"].update(num_memory_tokens=30_000_000))


def model_space(path: Path) -> None:
    space = {"type": "Box", "shape": [1 << 36], "dtype": "float32", "low": 0, "high": 1}
    _model(path, lambda d: d["environment"].update(observation_space=space))


FILES = {
    png: "bytes in one piece",
    tfrecord: "bytes in one piece",
    gzipped_tfrecord: "the file ends inside of it",
    hdf5_chunk: "bytes in one piece",
    npz: "10,001 bytes, which are loaded as a whole",
    gzipped_pickle: "a length of",
    doubled_tuples: "nested too deeply",
    memoized_tuples: "nested too deeply",
    deep_tuples: "nested too deeply",
    store_space: "cannot have the shape",
    model_layers: "far more parameters than there are weights",
    model_width: "far more parameters than there are weights",
    model_tokens: "far more parameters than there are weights",
    model_space: "cannot have the shape",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_what_is_too_large_is_refused_before_it_is_allocated(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((DatasetError, WeightsError), match=FILES[make]) as refused:
            make(tmp_path / "file.npz")
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert str(tmp_path) in str(refused.value)


def test_nested_data_are_no_nested_tuples(tmp_path: Path) -> None:
    """Lists of thousands of tuples, as of steps, are read in every protocol."""
    steps = [(np.zeros(3), (1, (2.0, (3,))), {(1, 2): 3}) for _ in range(300)]
    for protocol in range(6):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(steps, protocol))
        assert load_pickle(tmp_path / "x.pkl")[1][1:] == steps[1][1:]


def test_a_file_read_in_pieces_is_limited() -> None:
    file = limits.LimitedFile(io.BytesIO(bytes(10)), 4)
    assert file.read(4) == bytes(4)
    with pytest.raises(ValueError, match="a length of 5 bytes"):
        file.read(5)
