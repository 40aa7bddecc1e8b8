from __future__ import annotations

import base64
import builtins
import bz2
import collections
import contextlib
import datetime
import gzip
import lzma
import os
import pathlib
import pickle
import tracemalloc

import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.readers import pickles
from datamodules.readers.pickle_values import Unread
from datamodules.readers.pickles import first_texts, load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def same(found, wanted):
    if isinstance(wanted, list) and isinstance(wanted[0], dict):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, np.ndarray):
        native = wanted.dtype.newbyteorder("=")  # as NumPy itself unpickles some protocols
        return found.dtype.newbyteorder("=") == native and np.array_equal(found, wanted)
    return found == wanted


def episode(number):
    rng = np.random.default_rng(number)
    return {
        "float": rng.standard_normal((7, 3)).astype(np.float32),
        "fortran": np.asfortranarray(rng.standard_normal((4, 5))),
        "flags": rng.integers(0, 2, 6).astype(bool),
        "big endian": np.arange(3, dtype=">i4"),
        "bytes": rng.integers(0, 256, (2, 3, 4), dtype=np.uint8),
        "empty": np.zeros((0, 3)),
        "scalar": np.float64(number),
        "rest": {"n": number, "x": 0.5, "text": "long " * 50, "t": (1, (2, None)), "l": [True]},
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("container", [list, dict])
@pytest.mark.parametrize("count", [1, 2, 1001, 2300])
def test_the_contents_are_those_of_pickle_loads(tmp_path, protocol, container, count):
    path, items = tmp_path / "data.pkl", [episode(number % 5) for number in range(count)]
    if count > 2:
        items = [{"a": np.arange(n % 7), "n": n} for n in range(count)]
    path.write_bytes(pickle.dumps(items if container is list else dict(enumerate(items)), protocol))
    found = load_pickle(path)
    if container is dict:
        assert list(found) == list(range(count))
        found = list(found.values())
    assert len(found) == count
    assert all(map(same, found, items))


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_numpy_1(tmp_path, protocol):
    """The core module of NumPy 1 has another name."""
    data = pickle.dumps([episode(3)], protocol)
    old = data.replace(b"numpy._core", b"numpy.core")
    assert (old != data) == (np.__version__ >= "2")
    (tmp_path / "old.pkl").write_bytes(old)
    (found,) = load_pickle(tmp_path / "old.pkl")
    assert same(found, episode(3))


# `pickle.dumps([{"a": numpy.arange(3, dtype=">i2"), "b": numpy.float32(2)}], 4)` by NumPy 1.26.4.
NUMPY_1 = (
    "fCQD>0000000018lzo&ai~(Vkj1_KmZE$%mV{dY0E^T#ebZKF7a$$Ltj0|6LWn*t{b98cbV|0|0l#B&#b!~8Yl#B;%"
    "WMOi0VR@93luH1GltTexl!ug3lqgF9O9O?JXa<Z0WOR9OWt5YYi~?ygl!=Iklv0!^O9PAnK9o*QPD=m(|Nlz=|Ns9>"
    "0CbdMi9-ee000310+e)=VvGS|lxPEt26JO!Y+-Vglay!=i~?pfl!=Iklv0!^O9PAnJd{pOPD=m(|Nlz=|Ns9>0CbdM"
    "Lj(W-06>(6lv0#+VJ-"
)


def test_a_file_that_numpy_1_wrote(tmp_path):
    (tmp_path / "old.pkl").write_bytes(base64.b85decode(NUMPY_1))
    (found,) = load_pickle(tmp_path / "old.pkl")
    assert same(found, {"a": np.arange(3, dtype=">i2"), "b": np.float32(2)})


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class State:
    def __setstate__(self, state):
        raise AssertionError("this ran")

    def __getstate__(self):
        return {"a": 1}


DANGEROUS = {
    "system": lambda: Call(os.system, "touch pwned"),
    "eval": lambda: Call(builtins.eval, "open('pwned', 'w')"),
    "getattr": lambda: Call(getattr, "a", "upper"),
    "import": lambda: Call(__import__, "antigravity"),
    "numpy": lambda: Call(np.load, "x.npy"),
    "own class": State,
    "function": lambda: np.load,
    "in an array": lambda: np.array([Call(os.system, "touch pwned")], dtype=object),
    "in a set": lambda: {Call(os.system, "touch pwned")},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", DANGEROUS)
def test_no_code_of_a_pickle_is_run(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([{"a": DANGEROUS[name]()}], protocol))
    with pytest.raises(DatasetError, match=r"evil\.pkl: the pickle is not read, as it"):
        load_pickle(path)
    assert not (tmp_path / "pwned").exists()


def test_truncated_pickles_and_single_values_are_refused(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(3))
    with pytest.raises(DatasetError, match="a single value"):
        load_pickle(path)
    whole = pickle.dumps([episode(0), episode(1)])
    for kept in (0, 1, 2, 30, 300, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(DatasetError, match="damaged pickle"):
            load_pickle(path)


HARMLESS = {
    "counter": collections.Counter("aab"),
    "objects": np.array([{"a": np.arange(3)}, None], dtype=object),
    "texts": np.array(["a", "b"]),
    "a text": np.str_("a"),
    "records": np.zeros(2, dtype=[("a", "f4"), ("b", "O")]),
    "dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "set": {1, 2},
    "frozen set": frozenset([1]),
    "date": datetime.datetime(2020, 1, 1),
    "path": pathlib.PurePosixPath("a/b"),
    "type": np.float32,
    "complex": 1 + 2j,
}


def _holds_objects(found):
    return found["other"].dtype == object and not found["other"].size


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", HARMLESS)
def test_values_without_numbers_are_skipped(tmp_path, name, protocol):
    items = [{"a": np.arange(3), "other": HARMLESS[name], "z": np.ones(n)} for n in range(3)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(items, protocol))
    for found, wanted in zip(load_pickle(tmp_path / "data.pkl"), items, strict=True):
        assert isinstance(found["other"], (Unread, set, frozenset, type)) or _holds_objects(found)
        assert same(found["a"], wanted["a"])
        assert same(found["z"], wanted["z"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 30])
@pytest.mark.parametrize("opener", [open, gzip.open, bz2.open, lzma.open])
def test_tuples_dictionaries_with_defaults_and_compressed_files(tmp_path, protocol, count, opener):
    episodes = [collections.defaultdict(list, a=np.arange(n)) for n in range(count)]
    for container in (tuple(episodes), collections.defaultdict(dict, enumerate(episodes))):
        with opener(tmp_path / "data.pkl", "wb") as file:
            pickle.dump(container, file, protocol)
        found = load_pickle(tmp_path / "data.pkl")
        assert len(found) == count
        if isinstance(container, tuple):
            assert all(map(same, found, container))
        else:
            assert same(found, container)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_items_may_share_arrays(tmp_path, protocol):
    shared, about = np.arange(100), {"name": "x" * 3000}
    items = [{"a": shared, "n": np.full(3, n), "about": about} for n in range(5)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(items, protocol))
    assert all(map(same, load_pickle(tmp_path / "data.pkl"), items))


ONE_LIST = b"\x80\x02]"
MEMORY_BOMBS = {
    # The Unpickler would allocate a memo of twice this index.
    "a memo index": (ONE_LIST + b"r\xff\xff\xff\x7f.", "memo has no object 2147483647"),
    "a text memo index": (ONE_LIST + b"p2000000000\n.", "memo has no object 2000000000"),
    "a length": (ONE_LIST + b"\x8e" + (1 << 62).to_bytes(8, "little") + b".", "damaged pickle"),
    # One text of 10 kB, encoded anew by every call.
    "repeated copies": (
        ONE_LIST
        + b"(c_codecs\nencode\nq\x00X"
        + (10_000).to_bytes(4, "little")
        + b"a" * 10_000
        + b"q\x01\x85R"
        + b"h\x00h\x01\x85R" * 5000
        + b"e.",
        "makes more data than are in it",
    ),
}


@pytest.mark.parametrize("name", MEMORY_BOMBS)
def test_a_memory_bomb_is_refused(tmp_path, name):
    contents, message = MEMORY_BOMBS[name]
    (tmp_path / "bomb.pkl").write_bytes(contents)
    tracemalloc.start()
    with pytest.raises(DatasetError, match=message):
        load_pickle(tmp_path / "bomb.pkl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_a_pickle_above_the_free_memory_is_refused(tmp_path, monkeypatch):
    """A compressed file may hold far more than its own size."""
    with gzip.open(tmp_path / "data.pkl.gz", "wb") as file:
        pickle.dump([np.zeros(100_000, np.uint8) for _ in range(40)], file)
    assert (tmp_path / "data.pkl.gz").stat().st_size < 20_000
    monkeypatch.setattr(pickles, "available_memory", lambda: 1_000_000)
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"it is loaded as a whole, and 0\.001 GB of memory"):
        load_pickle(tmp_path / "data.pkl.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000


def test_state_for_a_function_or_a_type_changes_neither(tmp_path):
    """The opcode BUILD sets attributes of any object on the stack."""
    for name in (
        b"numpy\ndtype",
        b"_codecs\nencode",
        b"datetime\ndate",
        b"collections\nOrderedDict",
    ):
        contents = b"]c" + name + b"\n(N}X\x04\x00\x00\x00makeI1\nst" + b"b.."
        (tmp_path / "data.pkl").write_bytes(contents)
        with contextlib.suppress(DatasetError):
            load_pickle(tmp_path / "data.pkl")
    (tmp_path / "data.pkl").write_bytes(pickle.dumps([episode(1)], 2))
    (found,) = load_pickle(tmp_path / "data.pkl")
    assert same(found, episode(1))


def test_arrays_whose_state_is_wrong_are_refused(tmp_path):
    for shape in ((-1, -12), (3, 4.0), (13,), (1 << 40,)):
        array = np.arange(12, dtype=np.int8)
        state = array.__reduce__()
        changed = (state[0], state[1], (1, shape, array.dtype, False, array.tobytes()))
        (tmp_path / "data.pkl").write_bytes(pickle.dumps([Reduced(changed)], 2))
        with pytest.raises(DatasetError, match="damaged pickle"):
            load_pickle(tmp_path / "data.pkl")


class Reduced:
    def __init__(self, reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def test_the_first_texts_are_those_of_the_first_episode(tmp_path):
    for protocol in PROTOCOLS:
        (tmp_path / "data.pkl").write_bytes(
            pickle.dumps({0: {"obs": np.ones(9), "a": 1}}, protocol)
        )
        assert {"obs", "a"} <= first_texts(tmp_path / "data.pkl", 100)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_mutated_files_raise_dataset_errors_only(tmp_path, protocol):
    whole, rng = pickle.dumps([episode(0), episode(1)], protocol), np.random.default_rng(protocol)
    path = tmp_path / "data.pkl"
    for _ in range(400):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(DatasetError):
            load_pickle(path)
