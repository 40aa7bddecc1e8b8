"""A damaged, foreign or hostile store is refused, and the error names it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datamodules import DatasetError, Store


def edit_manifest(store, change):
    file = store.path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


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
    contents, size = file.read_bytes(), file.stat().st_size

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
    whole = contents.replace(b"'shape'", b"('shape'")  # the header has an unclosed parenthesis
    file.write_bytes(whole[:size])
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
