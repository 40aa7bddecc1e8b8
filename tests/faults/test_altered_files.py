"""Altered weights, stores and training states are refused where their bytes are used."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import DatasetError, Store, checked_arrays
from datamodules.store_files import MANIFEST, MANIFEST_DIGEST
from datamodules.tmaze import generate_tmaze
from datamodules.trajectories import TrajectoryDataModule
from rate import weights
from rate.errors import WeightsError
from rate.files import write_atomic
from rate.weights import DESCRIPTION, WEIGHTS, SavedModel, load_model, save_model
from tests.digests import remove_from_model
from tests.factories import make_model, make_spec
from tests.faults.test_crash_points import in_a_process


def save(folder: Path, seed: int = 0, step: int = 1) -> SavedModel:
    saved = SavedModel(make_model("rate"), make_spec(), extra={"step": step})
    with torch.no_grad():
        next(saved.model.parameters()).add_(seed)
    save_model(saved, folder)
    return saved


def flip(file: Path, place: int) -> None:
    """Flips one bit; the file keeps its size and its time."""
    state, content = file.stat(), bytearray(file.read_bytes())
    content[place] ^= 8
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("place", [-1, -2000, 9])
def test_a_flipped_bit_of_weights_is_refused(place: int, tmp_path: Path) -> None:
    save(tmp_path)
    load_model(tmp_path)  # what is known of the file is not used once it has changed
    flip(tmp_path / WEIGHTS, place)
    with pytest.raises(WeightsError, match=rf"{WEIGHTS} is damaged or was altered"):
        load_model(tmp_path)


def test_weights_of_another_seed_are_refused(tmp_path: Path) -> None:
    for name, seed in (("mine", 1), ("other", 2)):
        save(tmp_path / name, seed)
    shutil.copy(tmp_path / "other" / WEIGHTS, tmp_path / "mine")
    with pytest.raises(WeightsError, match=rf"mine/{WEIGHTS} is damaged or was altered"):
        load_model(tmp_path / "mine")


def test_an_altered_description_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / DESCRIPTION
    text = path.read_text()
    path.write_text(text.replace('"step": 1', '"step": 2'))
    assert path.read_text() != text
    with pytest.raises(WeightsError, match=rf"{DESCRIPTION} is damaged or was altered"):
        load_model(tmp_path)


def test_a_model_of_a_version_without_digests_is_read_with_a_notice(tmp_path: Path) -> None:
    save(tmp_path)
    remove_from_model(tmp_path)
    with pytest.warns(UserWarning, match="kept no digests"):
        load_model(tmp_path)


def test_a_model_that_is_replaced_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed after each of the files of the new model."""
    found = []
    for writes in range(4):
        folder = tmp_path / str(writes)
        old = save(folder, seed=1, step=1)

        def replace(folder: Path = folder, writes: int = writes) -> None:
            done = 0

            def write(path: Path, content: str | bytes) -> None:
                nonlocal done
                if done == writes:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1
                write_atomic(path, content)

            monkeypatch.setattr(weights, "write_atomic", write)
            save(folder, seed=2, step=2)

        in_a_process(replace)
        loaded = load_model(folder)
        same = [
            torch.equal(value, loaded.model.state_dict()[name])
            for name, value in old.model.state_dict().items()
        ]
        assert all(same) == (loaded.extra == {"step": 1})
        found.append(loaded.extra["step"])
        save(folder, seed=3, step=3)
        assert load_model(folder).extra == {"step": 3}
        assert "before" not in json.loads((folder / DESCRIPTION).read_text())
    assert found == [1, 1, 2, 2]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return generate_tmaze(tmp_path, 12, num_episodes=8)


def make_data(store: Path) -> TrajectoryDataModule:
    return TrajectoryDataModule(store, batch_size=2, context_length=4, segments=3, seed=0)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "returns_to_go"])
def test_a_flipped_bit_of_data_is_refused_before_training(name: str, store: Path) -> None:
    make_data(store).next_batch()
    flip(store / f"{name}.npy", -3)
    with pytest.raises(DatasetError, match=rf"{name}\.npy: "):
        make_data(store)


def test_large_files_are_compared_while_they_are_used(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_arrays, "LARGE_BYTES", 1)
    flip(store / "rewards.npy", -3)
    data = make_data(store)
    data.next_batch()
    with pytest.raises(DatasetError, match=r"rewards\.npy: the contents changed"):
        data.teardown("fit")
    with pytest.raises(DatasetError, match=r"rewards\.npy: the contents changed"):
        data.state_dict()  # so that no checkpoint is saved


def test_an_altered_manifest_is_refused(store: Path) -> None:
    manifest = (store / MANIFEST).read_text()
    (store / MANIFEST).write_text(manifest.replace('"target_return": 1.0', '"target_return": 0.5'))
    with pytest.raises(DatasetError, match=rf"{MANIFEST}: the contents changed"):
        Store.open(store)
    (store / MANIFEST).write_text(manifest)
    (store / MANIFEST_DIGEST).unlink()
    with pytest.warns(UserWarning, match="kept no digest"):
        assert np.isfinite(Store.open(store).return_range).all()
