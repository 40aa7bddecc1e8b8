from __future__ import annotations

import base64
import builtins
import collections
import contextlib
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.readers.pickles import read_items

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def same(found, wanted):
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
    "counter": lambda: collections.Counter("aab"),
    "function": lambda: np.load,
    "objects": lambda: np.array([{}], dtype=object),
    "texts": lambda: np.array(["a"]),
    "records": lambda: np.zeros(2, dtype=[("a", "f4"), ("b", "O")]),
    "set": lambda: {1, 2},
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


def test_items_that_share_an_array_are_refused(tmp_path):
    shared = np.arange(100)
    (tmp_path / "data.pkl").write_bytes(pickle.dumps([{"a": shared}, {"a": shared}]))
    with pytest.raises(DatasetError, match="share an array"):
        list(read_items(tmp_path / "data.pkl"))


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
