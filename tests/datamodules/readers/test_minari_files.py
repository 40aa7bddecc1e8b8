"""Minari's files as each of its versions writes them."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from minari.serialization import serialize_space
from PIL import Image

from datamodules.convert import convert, convert_to_minari
from datamodules.episodes import DatasetError, Episode, integer_seed
from datamodules.formats import open_source
from datamodules.readers.minari import open_minari
from datamodules.readers.minari_source import open_minari_source
from datamodules.source import Source, ValidEpisodes
from datamodules.store import Store
from rate.envs.spec import EnvironmentSpec
from tests.datamodules.samples import LENGTHS, write_minari
from tests.digests import renew_store

SHAPES = {"rgb": (40, 48, 3), "small": (7, 7, 3), "grey": (36, 40), "first": (3, 36, 40)}
JPEG_NOTE = "Minari stored the pixels as JPEG, which changed them when it was made"


def frames(shape, length, number):
    return np.random.default_rng(number).integers(0, 256, (length + 1, *shape), dtype=np.uint8)


def jpeg(frame):
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, format="JPEG")
    return np.frombuffer(stream.getvalue(), np.uint8)


def written_by(version, path, make):
    """Replaces the images that the installed Minari wrote, and sets its version."""
    metadata = path / "data" / "metadata.json"
    known = json.loads(metadata.read_text())
    known.pop("jpeg_encoding", None)
    metadata.write_text(json.dumps(known | {"minari_version": version}))
    with h5py.File(path / "data" / "main_data.hdf5", "r+") as file:
        for number, length in enumerate(LENGTHS):
            group = file[f"episode_{number}"]
            nested = isinstance(group["observations"], h5py.Group)
            place = "observations/image" if nested else "observations"
            del group[place]
            make(group, place, length, number)
    return path


def write_images(tmp_path, shape, nested):
    """Writes a data set of images with placeholders, which `written_by` replaces."""

    def make(length, number):
        seen = np.zeros((length + 1, 2), np.float32)
        return {"image": seen, "bit": np.zeros(length + 1, int)} if nested else seen

    def space(image):
        return spaces.Dict(image=image, bit=spaces.Discrete(2)) if nested else image

    other = spaces.Box(0, 1, (2,), np.float32)  # which no version takes for images
    path = write_minari(tmp_path, "pixels-v0", "hdf5", space(other), make=make)
    metadata = path / "data" / "metadata.json"
    spaces_of_data = {
        "observation_space": serialize_space(space(spaces.Box(0, 255, shape, np.uint8)))
    }
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | spaces_of_data))
    return path


def images_of(source):
    for episode in ValidEpisodes(source):
        seen, last = episode.observations, episode.last_observation
        yield (seen["image"], last["image"]) if isinstance(seen, dict) else (seen, last)


@pytest.mark.parametrize("nested", [False, True], ids=["alone", "in-a-dictionary"])
@pytest.mark.parametrize("name", SHAPES)
def test_raw_pixels_are_read_unchanged(tmp_path, name, nested):
    def raw(group, place, length, number):
        group[place] = frames(SHAPES[name], length, number)

    path = written_by("0.5.2", write_images(tmp_path, SHAPES[name], nested), raw)
    source = open_minari_source(path)
    assert JPEG_NOTE not in source.notes
    for number, (seen, last) in enumerate(images_of(source)):
        wanted = frames(SHAPES[name], LENGTHS[number], number)
        np.testing.assert_array_equal(np.concatenate([seen, last[None]]), wanted)
    assert number == len(LENGTHS) - 1


@pytest.mark.parametrize("equal", [False, True], ids=["of-any-size", "of-one-size"])
@pytest.mark.parametrize("name", ["rgb", "small", "grey"])
def test_jpeg_images_are_decoded_with_a_note(tmp_path, name, equal):
    """0.5.3 stores small images as JPEG as well; equal numbers of bytes form a plain array."""

    def content(length, number):
        found = frames(SHAPES[name], length, number)
        return np.repeat(found[:1], length + 1, axis=0) if equal else found

    def lossy(group, place, length, number):
        encoded = [jpeg(frame) for frame in content(length, number)]
        dtype = None if equal else h5py.vlen_dtype(np.uint8)
        group.create_dataset(place, data=encoded, dtype=dtype)

    path = written_by("0.5.3", write_images(tmp_path, SHAPES[name], False), lossy)
    source = open_minari_source(path)
    assert JPEG_NOTE in source.notes
    for number, (seen, last) in enumerate(images_of(source)):
        wanted = [
            np.asarray(Image.open(io.BytesIO(jpeg(frame).tobytes())))
            for frame in content(LENGTHS[number], number)
        ]
        np.testing.assert_array_equal(np.concatenate([seen, last[None]]), np.stack(wanted))


def test_an_invalid_image_loses_its_episode(tmp_path):
    def lossy(group, place, length, number):
        shape = (48, 40, 3) if number == 1 else SHAPES["rgb"]
        encoded = [jpeg(frame) for frame in frames(shape, length, number)]
        if number == 2:
            encoded[0] = np.frombuffer(b"%!PS-Adobe-3.0 EPSF-3.0", np.uint8)
        group.create_dataset(place, data=encoded, dtype=h5py.vlen_dtype(np.uint8))

    path = written_by("0.5.3", write_images(tmp_path, SHAPES["rgb"], False), lossy)
    bad = []
    assert len(list(open_minari_source(path).read(0, bad.append))) == 1
    assert "episode 1: cannot be read (an image has 48 x 40 pixels" in str(bad[0])
    assert "episode 2: cannot be read" in str(bad[1])


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="Minari needs pyarrow")
def test_pixels_in_arrow_files_are_recognised_by_their_type(tmp_path):
    from pyarrow import array, binary, dataset, record_batch

    shape, length = (40, 48, 3), LENGTHS[0]
    flat = spaces.Box(0, 255, shape, np.uint8)
    path = write_minari(
        tmp_path, "a-v0", "arrow", flat, make=lambda length, number: frames(shape, length, number)
    )
    metadata = path / "data" / "metadata.json"
    known = json.loads(metadata.read_text())
    known.pop("jpeg_encoding", None)  # as up to 0.5.2
    metadata.write_text(json.dumps(known))
    folder = path / "data" / "0"
    table = dataset.dataset(folder, format="arrow", ignore_prefixes=["metadata.json"]).to_table()
    found = frames(shape, length, 0)
    if "binary" not in str(table["observations"].type):  # 0.5.3 makes JPEG of them unasked
        (seen, last), *_ = images_of(open_minari_source(path))
        np.testing.assert_array_equal(np.concatenate([seen, last[None]]), found)
    encoded = array([jpeg(frame).tobytes() for frame in found], type=binary())
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    for file in folder.glob("*.arrow"):
        file.unlink()
    batch = record_batch(columns | {"observations": encoded})
    options = {"format": "arrow", "existing_data_behavior": "overwrite_or_ignore"}
    dataset.write_dataset(batch, folder, **options)
    source = open_minari_source(path)
    assert JPEG_NOTE in source.notes
    (seen, _), *_ = images_of(source)
    np.testing.assert_array_equal(seen[0], Image.open(io.BytesIO(jpeg(found[0]).tobytes())))


SEEDS = [0, 123, 2**63, 2**64 - 1, 2**127 + 5, -1, -(2**63), -(2**90), None, 2**63 - 1]


def seeded(seeds):
    observations = np.zeros((2, 3), np.float32)
    spec = EnvironmentSpec("x", spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2), 1.0)

    def read(start, on_bad):
        for seed in seeds[start:]:
            rewards = np.ones(2, np.float32)
            yield Episode(
                observations, np.zeros(2, int), rewards, False, True, seed, observations[0]
            )

    return spec, read


def test_a_seed_may_be_any_integer(tmp_path):
    spec, read = seeded(SEEDS)
    store = convert(Source("test", tmp_path, (), spec, read), tmp_path / "store")
    opened = Store.open(store)
    assert [opened.episode(number).seed for number in range(len(SEEDS))] == SEEDS
    exported = convert_to_minari(open_source(store), tmp_path / "minari" / "seeds-v0")
    assert [episode.seed for episode in ValidEpisodes(open_minari_source(exported))] == SEEDS
    written = open_minari(exported).storage.get_episode_metadata(range(len(SEEDS)))
    assert [metadata.get("seed") for metadata in written] == SEEDS  # Minari itself
    again = convert(open_source(exported), tmp_path / "again")
    assert [Store.open(again).seed(number) for number in range(len(SEEDS))] == SEEDS


def test_seeds_survive_an_interruption(tmp_path):
    spec, read = seeded(SEEDS)

    def stopped(start, on_bad):
        for number, episode in enumerate(read(start, on_bad), start=start):
            if number == 6:
                raise KeyboardInterrupt
            yield episode

    broken = Source("test", tmp_path, (), spec, stopped)
    with pytest.raises(KeyboardInterrupt):
        convert(broken, tmp_path / "store", save_seconds=0)
    store = Store.open(convert(Source("test", tmp_path, (), spec, read), tmp_path / "store"))
    assert [store.episode(number).seed for number in range(len(SEEDS))] == SEEDS


@pytest.mark.parametrize("seeds", [[], {"1": 5}, {"1": "none"}, {"x": "0x1"}], ids=repr)
def test_damaged_seeds_are_named(tmp_path, seeds):
    spec, read = seeded(SEEDS)
    store = convert(Source("test", tmp_path, (), spec, read), tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps(manifest | {"large_seeds": seeds}))
    renew_store(store)
    with pytest.raises(DatasetError, match="large_seeds is damaged"):
        Store.open(store).episode(1)


FORMS = {
    np.uint64(2**64 - 1): 2**64 - 1,
    np.int32(-7): -7,
    "340282366920938463463374607431768211455": 2**128 - 1,
    b"12": 12,
    "None": None,
    "": None,
    5.0: 5,
    float("nan"): None,
    float("inf"): None,
    1.5: None,
    None: None,
}


@pytest.mark.parametrize("value", FORMS, ids=repr)
def test_seeds_in_every_form_that_files_have(value):
    assert integer_seed(value) == FORMS[value]
    assert integer_seed(np.array([5])) == 5
    assert integer_seed(np.array([5, 6])) is None


def test_a_seed_that_is_not_an_integer_is_ignored(tmp_path):
    path = write_minari(tmp_path)
    with h5py.File(path / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0"].attrs["seed"] = "None"  # as Minari 0.4 has it
        file["episode_1"].attrs["seed"] = np.uint64(2**64 - 3)
        del file["episode_2"].attrs["seed"]
    seeds = [episode.seed for episode in ValidEpisodes(open_minari_source(path))]
    assert seeds == [None, 2**64 - 3, None]
