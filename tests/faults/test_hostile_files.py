"""Files that would hang a reader, fill the memory, or bring in other files, are refused by name."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules import DatasetError, Store
from datamodules.formats import open_source
from datamodules.readers import dqn_replay
from datamodules.store_files import MANIFEST
from datamodules.tmaze import generate_tmaze
from rate.errors import WeightsError
from rate.files import file_sha256
from rate.weights import DESCRIPTION, WEIGHTS, SavedModel, load_model, save_model
from tests.datamodules import samples
from tests.digests import renew_store
from tests.factories import make_model, make_spec
from trainers.callbacks import SafeCheckpointIO
from trainers.errors import CheckpointError


def read(path: Path) -> None:
    source = open_source(path)
    for _ in source.read(0, lambda error: None):
        pass


@pytest.mark.parametrize("kind", ["link", "soft", "storage", "virtual"])
def test_hdf5_brings_in_no_other_file(kind: str, tmp_path: Path) -> None:
    path, other = samples.write_d4rl(tmp_path / "x.hdf5"), tmp_path / "secret.h5"
    with h5py.File(path, "r+") as file:
        rewards = file["rewards"][()]
        del file["rewards"]
        with h5py.File(other, "w") as secret:
            secret["rewards"] = rewards
        if kind in ("link", "soft"):
            file["there"] = h5py.ExternalLink(str(other), "/")
            link = h5py.ExternalLink(str(other), "rewards")
            file["rewards"] = link if kind == "link" else h5py.SoftLink("/there/rewards")
        elif kind == "storage":
            raw = [(str(other), 0, rewards.nbytes)]
            file.create_dataset("rewards", rewards.shape, rewards.dtype, external=raw)
        else:
            layout = h5py.VirtualLayout(rewards.shape, rewards.dtype)
            layout[:] = h5py.VirtualSource(str(other), "rewards", rewards.shape)
            file.create_virtual_dataset("rewards", layout)
    with pytest.raises(DatasetError, match="stands in another file, which is not read"):
        read(path)


def test_hdf5_of_more_than_its_file_can_hold_is_refused(tmp_path: Path) -> None:
    path = samples.write_d4rl(tmp_path / "x.hdf5")
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file.create_dataset("rewards", (1 << 40,), "f4", chunks=(1 << 20,))
    with pytest.raises(DatasetError, match="rewards cannot have 4,398,046,511,104 bytes"):
        read(path)


def test_gzip_is_limited_before_it_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dqn_replay, "_MOST_BYTES", 1000)
    content = io.BytesIO()
    np.save(content, np.zeros(10_000, np.uint8))
    for name in ("observation", "action", "reward", "terminal"):
        path = tmp_path / f"$store$_{name}_ckpt.0.gz"
        path.write_bytes(gzip.compress(content.getvalue()))
    with pytest.raises(DatasetError, match="more than 1,000 bytes"):
        read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    store = generate_tmaze(tmp_path, 5, num_episodes=2)
    save_model(SavedModel(make_model("rate"), make_spec()), tmp_path / "model")
    for path in (store / "rewards.npy", store / MANIFEST, tmp_path / "model" / WEIGHTS):
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(DatasetError, match="is a pipe or a device"):
        open_source(store)
    with pytest.raises(WeightsError, match=f"{WEIGHTS} cannot be read: .*no regular file"):
        load_model(tmp_path / "model")
    (tmp_path / "model" / DESCRIPTION).unlink()
    (tmp_path / "model" / DESCRIPTION).symlink_to("/dev/zero")
    with pytest.raises(WeightsError):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    "value", [{"dtype": "9" * 30}, {"dtype": [[]]}, {"shape": "x"}, {"bytes": []}, {"file": 3}]
)
def test_manifests_with_impossible_entries_are_refused(value: object, tmp_path: Path) -> None:
    store = generate_tmaze(tmp_path, 5, num_episodes=2)
    manifest = json.loads((store / MANIFEST).read_text())
    manifest["arrays"]["actions"].update(value)
    (store / MANIFEST).write_text(json.dumps(manifest))
    renew_store(store)
    with pytest.raises(DatasetError, match=str(store)):
        Store.open(store)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"PK\x05\x06" + bytes(18), b"\x80\x02."])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    path.with_name("last.ckpt.sha256").write_text(file_sha256(path))
    with pytest.raises(CheckpointError, match="was refused"):
        SafeCheckpointIO().load_checkpoint(path)
