from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError, Episode, Store, pack
from rate.envs.spec import EnvironmentSpec


def edit_manifest(store, change):
    file = store.path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_what_goes_in_comes_out(store, spec, lengths, make_episode):
    assert (store.num_episodes, store.num_steps) == (len(lengths), sum(lengths))
    assert store.lengths.tolist() == lengths
    assert store.spec == spec
    for number, length in enumerate(lengths):
        wanted, found = make_episode(length, number), store.episode(number)
        np.testing.assert_array_equal(found.observations, wanted.observations)
        np.testing.assert_array_equal(found.actions, wanted.actions)
        np.testing.assert_array_equal(found.rewards, wanted.rewards.astype(np.float32))
        assert (found.terminated, found.truncated) == (wanted.terminated, wanted.truncated)
        assert found.seed == number
    with pytest.raises(IndexError, match="episode 8 of 8"):
        store.episode(8)


def test_returns_and_normalisation(store, lengths, make_episode):
    episodes = [make_episode(length, number) for number, length in enumerate(lengths)]
    returns = [episode.rewards.sum() for episode in episodes]
    assert store.return_range == pytest.approx((min(returns), max(returns)))
    for number, episode in enumerate(episodes):
        rows = slice(store.offsets[number], store.offsets[number + 1])
        wanted = [episode.rewards[step:].sum() for step in range(len(episode))]
        np.testing.assert_allclose(store.arrays["returns_to_go"][rows], wanted, rtol=1e-6)
    mean, std = store.normalisation[""]
    stacked = np.concatenate([episode.observations for episode in episodes]).astype(np.float64)
    np.testing.assert_allclose(mean, stacked.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, stacked.std(axis=0), rtol=1e-6)


def test_arrays_are_read_only_plain_files(store):
    for name, array in store.arrays.items():
        assert not array.flags.writeable, name
        file = store.path / store.manifest["arrays"][name]["file"]
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), array)


def test_fingerprint_names_the_contents(store, tmp_path, make_store):
    assert make_store(tmp_path / "same").fingerprint == store.fingerprint
    assert make_store(tmp_path / "other", [3, 4]).fingerprint != store.fingerprint


def test_return_to_go_is_summed_in_float64_and_integers_are_not_truncated(tmp_path, spec):
    rewards = np.array([0, 1, 0, 255, 1], dtype=np.uint8)  # an 8-bit sum would wrap
    base = Episode(np.zeros((5, 3), np.float32), np.zeros((5, 2), np.float32), rewards, True, False)
    tiny = np.full(100_000, 0.1, dtype=np.float32)
    long = Episode(
        np.zeros((len(tiny), 3), np.float32),
        np.zeros((len(tiny), 2), np.float32),
        tiny,
        True,
        False,
    )
    half = replace(base, rewards=np.array([0.5, 0, 0, 0, 0.25]))
    store = pack([base, long, half], tmp_path / "s", spec, {})
    to_go = store.arrays["returns_to_go"]
    assert to_go[:5].tolist() == [257, 257, 256, 256, 1]
    assert to_go[5] == np.float32(tiny.astype(np.float64).sum())
    assert to_go[-5:].tolist() == [0.75, 0.25, 0.25, 0.25, 0.25]
    assert to_go.dtype == store.arrays["rewards"].dtype == np.float32


def test_dictionaries_pixels_and_integers_keep_their_types(tmp_path):
    spec = EnvironmentSpec(
        "camera",
        spaces.Dict(
            {
                "front/rgb": spaces.Box(0, 255, (8, 8, 3), np.uint8),
                "front rgb": spaces.Box(0, 255, (2, 2), np.uint8),
                "joints": spaces.Box(-1, 1, (5,), np.float64),
                "token": spaces.Discrete(7),
            }
        ),
        spaces.MultiDiscrete([3, 4]),
        1.0,
    )
    rng = np.random.default_rng(0)

    def play(steps):
        return Episode(
            {
                "front/rgb": rng.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8),
                "front rgb": rng.integers(0, 256, (steps, 2, 2), dtype=np.uint8),
                "joints": rng.uniform(-1, 1, (steps, 5)),
                "token": rng.integers(0, 7, steps),
            },
            rng.integers(0, 3, (steps, 2)),
            np.ones(steps, dtype=int),
            terminated=False,
            truncated=True,
        )

    episodes = [play(4), play(6)]
    store = pack(iter(episodes), tmp_path / "s", spec, {})
    types = {key: array.dtype for key, array in store.observations.items()}
    assert types == {
        "front/rgb": np.uint8,
        "front rgb": np.uint8,
        "joints": np.float32,
        "token": np.int64,
    }
    assert store.arrays["actions"].dtype == np.int64
    assert list(store.normalisation) == ["joints"]
    for wanted, found in zip(episodes, (store.episode(0), store.episode(1)), strict=True):
        for key, array in wanted.observations.items():
            np.testing.assert_array_equal(found.observations[key], array.astype(types[key]))
        assert found.seed is None
    assert all(path.parent == store.path for path in store.path.rglob("*"))


PARTS = {
    "vector": spaces.Box(-9, 9, (2,), np.float32),
    "hint": spaces.Box(-1, 1, (1,), np.float32),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
}


@pytest.fixture
def hinted(tmp_path):
    """A store whose observations are a dictionary."""
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            {
                "vector": rng.uniform(-9, 9, (steps, 2)).astype(np.float32),
                "hint": rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
                "image": rng.integers(0, 256, (steps, 4, 4, 3), dtype=np.uint8),
            },
            rng.integers(0, 3, steps),
            np.ones(steps),
            True,
            False,
            seed=steps,
        )
        for steps in (3, 5)
    ]
    spec = EnvironmentSpec("hinted", spaces.Dict(PARTS), spaces.Discrete(3), 1.0)
    return pack(episodes, tmp_path / "s", spec, {})


@pytest.mark.parametrize("key", ["vector", "image"])
def test_a_view_of_one_part_of_the_observations(hinted, key):
    view = hinted.observing(PARTS[key])
    assert view.spec.observation_space == PARTS[key]
    assert view.spec.name == "hinted"
    assert view.observations is hinted.observations[key]
    assert "hint" not in "".join(view.arrays)
    assert view.fingerprint == hinted.fingerprint
    assert view.lengths.tolist() == [3, 5]
    whole, part = hinted.episode(1), view.episode(1)
    np.testing.assert_array_equal(part.observations, whole.observations[key])
    np.testing.assert_array_equal(part.actions, whole.actions)
    assert part.seed == 5
    assert list(view.normalisation) == ([""] if key == "vector" else [])
    if key == "vector":
        np.testing.assert_array_equal(view.normalisation[""], hinted.normalisation["vector"])
    assert view.observing(PARTS[key]) is view
    assert hinted.observing(spaces.Dict(PARTS)) is hinted
    assert set(hinted.observations) == set(PARTS)  # the store itself is as it was


def test_a_view_that_the_data_do_not_have_is_refused(hinted, store):
    other = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    with pytest.raises(
        DatasetError, match=r"is Dict\(.*, but Box\(0, 255, \(8, 8, 3\), uint8\) is w"
    ):
        hinted.observing(other)
    with pytest.raises(DatasetError, match=r"observation_space of the data is Box\(-inf.*but Dict"):
        store.observing(spaces.Dict(PARTS))


def test_a_view_must_be_the_only_one(tmp_path):
    two = spaces.Dict({"left": PARTS["hint"], "right": PARTS["hint"]})
    zeros = np.zeros((2, 1), np.float32)
    episode = Episode({"left": zeros, "right": zeros}, np.zeros(2, int), np.zeros(2), True, False)
    spec = EnvironmentSpec("twins", two, spaces.Discrete(3), 1.0)
    with pytest.raises(DatasetError, match="which left and right have"):
        pack([episode], tmp_path / "s", spec, {}).observing(PARTS["hint"])


def test_opening_takes_milliseconds(store):
    start = time.perf_counter()
    Store.open(store.path)
    assert time.perf_counter() - start < 0.5  # generous: the machine may be busy
    Store.open(store.path, verify=True)


def test_nothing_appears_when_an_episode_is_wrong(tmp_path, spec, make_episode):
    def episodes():
        yield make_episode(4)
        yield replace(make_episode(4), rewards=np.array([0, np.nan, 0, 0]))

    with pytest.raises(DatasetError, match=r"bad\.h5, episode 1: rewards: the value at step 1"):
        pack(episodes(), tmp_path / "s", spec, {"source": "bad.h5"})
    with pytest.raises(DatasetError, match="no episodes"):
        pack([], tmp_path / "s", spec, {})
    assert [path.name for path in tmp_path.iterdir() if "lock" not in path.name] == []


def test_an_existing_store_is_not_overwritten(own_store, spec, make_episode):
    with pytest.raises(DatasetError, match="already exists"):
        pack([make_episode(3)], own_store.path, spec, {})
    Store.open(own_store.path, verify=True)


def _pack_for_ever(path, spec, episode):
    def episodes():
        while True:
            yield episode
            time.sleep(0.001)

    pack(episodes(), path, spec, {})


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_packer_leaves_no_store_and_the_next_one_cleans_up(tmp_path, spec, make_episode):
    path = tmp_path / "s"
    process = multiprocessing.get_context("fork").Process(
        target=_pack_for_ever, args=(path, spec, make_episode(50))
    )
    process.start()
    while not list(tmp_path.glob(".s.tmp-*/actions.npy")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (left,) = tmp_path.glob(".s.tmp-*")
    assert not path.exists()
    with pytest.raises(DatasetError, match="not a trajectory store"):
        Store.open(left)
    assert pack([make_episode(3)], path, spec, {}).num_episodes == 1
    assert not left.exists()


def test_of_two_packers_at_once_one_wins_and_its_store_is_whole(tmp_path, spec, make_episode):
    results = []

    def run():
        try:
            pack([make_episode(5)] * 50, tmp_path / "s", spec, {})
            results.append("made")
        except DatasetError as error:
            results.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result == "made" for result in results) == [False, True]
    assert Store.open(tmp_path / "s", verify=True).num_episodes == 50


@pytest.mark.parametrize("name", ["observations", "actions", "returns_to_go", "offsets", "seeds"])
def test_truncated_and_missing_files_are_named(own_store, name):
    file = own_store.path / f"{name}.npy"
    contents = file.read_bytes()
    file.write_bytes(contents[:-4])
    with pytest.raises(DatasetError, match=rf"{name}\.npy: the file has {len(contents) - 4} bytes"):
        Store.open(own_store.path)
    file.unlink()
    with pytest.raises(DatasetError, match=rf"{name}\.npy: the file is missing"):
        Store.open(own_store.path)


def test_a_flipped_bit_is_found_on_request(own_store):
    file = own_store.path / "rewards.npy"
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)
    Store.open(own_store.path)
    with pytest.raises(DatasetError, match=r"rewards\.npy: the contents changed"):
        Store.open(own_store.path, verify=True)


def test_pickles_and_other_arrays_are_refused(own_store):
    file = own_store.path / "rewards.npy"
    size = file.stat().st_size

    def put(write):
        with file.open("wb") as stream:
            write(stream)
        padding = size - file.stat().st_size
        with file.open("ab") as stream:
            stream.write(b"\0" * padding)

    rows = own_store.num_steps
    put(lambda stream: np.save(stream, np.array([{}] * 3, dtype=object), allow_pickle=True))
    with pytest.raises(DatasetError, match=r"rewards\.npy: not a plain"):
        Store.open(own_store.path)
    put(lambda stream: stream.write(b"no array"))
    with pytest.raises(DatasetError, match=r"rewards\.npy: not a plain"):
        Store.open(own_store.path)
    put(lambda stream: np.save(stream, np.zeros(rows, dtype=np.int32)))
    with pytest.raises(DatasetError, match=r"rewards\.npy: the file holds int32"):
        Store.open(own_store.path)


def test_foreign_directories_and_versions_are_refused(tmp_path, own_store):
    with pytest.raises(DatasetError, match=r"absent: not a trajectory store.*convert"):
        Store.open(tmp_path / "absent")
    (tmp_path / "manifest.json").write_text('{"images": 3}')
    with pytest.raises(DatasetError, match="not the manifest of a trajectory store"):
        Store.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": ')
    with pytest.raises(DatasetError, match="not valid JSON"):
        Store.open(tmp_path)
    edit_manifest(own_store, lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(DatasetError, match=r"schema version 99.*reads version 1"):
        Store.open(own_store.path)


def test_hostile_manifests_are_refused(own_store):
    original = (own_store.path / "manifest.json").read_text()
    secret = own_store.path.parent / "secret.npy"
    np.save(secret, np.zeros(3))

    def refused(change, message):
        edit_manifest(own_store, change)
        with pytest.raises(DatasetError, match=message):
            Store.open(own_store.path)
        (own_store.path / "manifest.json").write_text(original)

    refused(
        lambda m: m["arrays"]["rewards"].update(file="../secret.npy"), "not a file of this store"
    )
    refused(lambda m: m["arrays"]["rewards"].update(shape=[2**63]), "rewards.npy")
    refused(lambda m: m["arrays"]["rewards"].pop("bytes"), "manifest is damaged")
    refused(lambda m: m["arrays"].pop("actions"), "manifest is damaged")
    refused(lambda m: m.update(arrays=3), "manifest is damaged")
    Store.open(own_store.path, verify=True)


def test_offsets_must_fit_the_arrays(own_store):
    file = own_store.path / "offsets.npy"
    offsets = np.load(file, mmap_mode="r+")
    offsets[-1] += 5
    offsets.flush()
    with pytest.raises(DatasetError, match="has 44 rows, but the episodes have 49 steps"):
        Store.open(own_store.path)
    offsets[2] = offsets[1]
    offsets.flush()
    with pytest.raises(DatasetError, match=r"offsets\.npy: the episode offsets do not increase"):
        Store.open(own_store.path)
