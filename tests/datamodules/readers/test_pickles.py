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
from datamodules.readers.pickle_values import Unread
from datamodules.readers.pickles import read_items

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def same(found, wanted):
    if isinstance(wanted, list) and isinstance(wanted[0], dict):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, np.ndarray):
        return found.dtype == wanted.dtype and np.array_equal(found, wanted)
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
def test_items_are_what_pickle_loads(tmp_path, protocol, container, count):
    path, items = tmp_path / "data.pkl", [episode(number % 5) for number in range(count)]
    if count > 2:
        items = [{"a": np.arange(n % 7), "n": n} for n in range(count)]
    path.write_bytes(pickle.dumps(items if container is list else dict(enumerate(items)), protocol))
    found = list(read_items(path))
    if container is dict:
        assert [key for key, _ in found] == list(range(count))
        found = [value for _, value in found]
    assert all(map(same, found, items))
    assert len(found) == count


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_numpy_1(tmp_path, protocol):
    """NumPy 1 had its core under another name, which protocols up to 2 write as a line."""
    data = pickle.dumps([episode(3)], protocol)
    old = data.replace(b"numpy._core", b"numpy.core")
    assert (old != data) == (np.__version__ >= "2")
    (tmp_path / "old.pkl").write_bytes(old)
    (found,) = read_items(tmp_path / "old.pkl")
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
    (found,) = read_items(tmp_path / "old.pkl")
    assert same(found, {"a": np.arange(3, dtype=">i2"), "b": np.float32(2)})


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_memory_is_bounded_by_an_item(tmp_path, protocol):
    path = tmp_path / "large.pkl"
    path.write_bytes(pickle.dumps([{"x": np.full(50_000, n, np.float32)} for n in range(50)]))
    tracemalloc.start()
    assert sum(1 for _ in read_items(path)) == 50
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 200_000 < path.stat().st_size / 8


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
def test_nothing_is_run(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([{"a": DANGEROUS[name]()}], protocol))
    with pytest.raises(DatasetError, match=r"evil\.pkl: the pickle is not read, as it"):
        list(read_items(path))
    assert not (tmp_path / "pwned").exists()


def test_what_is_no_list_or_is_cut_off(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(3))
    with pytest.raises(DatasetError, match="a single value"):
        list(read_items(path))
    whole = pickle.dumps([episode(0), episode(1)])
    for kept in (0, 1, 2, 30, 300, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(DatasetError, match="damaged pickle"):
            list(read_items(path))


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


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_data_costs_no_data(tmp_path, name, protocol):
    items = [{"a": np.arange(3), "other": HARMLESS[name], "z": np.ones(n)} for n in range(3)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(items, protocol))
    for found, wanted in zip(read_items(tmp_path / "data.pkl"), items, strict=True):
        assert isinstance(found["other"], Unread)
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
        found = list(read_items(tmp_path / "data.pkl"))
        assert same(found if isinstance(container, tuple) else dict(found), _same_kind(container))


def _same_kind(container):
    return list(container) if isinstance(container, tuple) else dict(container)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_items_may_share_arrays(tmp_path, protocol):
    shared, about = np.arange(100), {"name": "x" * 3000}
    items = [{"a": shared, "n": np.full(3, n), "about": about} for n in range(5)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(items, protocol))
    assert all(map(same, read_items(tmp_path / "data.pkl"), items))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_mutations_raise_nothing_else(tmp_path, protocol):
    whole, rng = pickle.dumps([episode(0), episode(1)], protocol), np.random.default_rng(protocol)
    path = tmp_path / "data.pkl"
    for _ in range(400):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(DatasetError):
            list(read_items(path))
