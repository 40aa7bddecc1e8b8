"""Data in read-only folders, and users without a home directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules import DatasetError, Store, writing
from datamodules.convert import convert, convert_to_minari
from datamodules.downloads import fetch, fetch_minari
from datamodules.episode_table import table_path
from datamodules.formats import open_source
from datamodules.local_data import find_d4rl, find_minari
from datamodules.public_data import Remote
from datamodules.tmaze import generate_tmaze
from tests.datamodules import samples
from tests.datamodules.walk import SEEDS, SPEC, run
from tests.users import another_user, closed, needs_root, posix

pytestmark = posix


def tree(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_existing_data_are_used_and_missing_ones_named(common):
    made, store = run(common, workers=1), generate_tmaze(common, 9, 20, 0)
    before = tree(common)
    with closed(common):
        assert run(common, workers=1) == made
        assert generate_tmaze(common, 9, 20, 0) == store
        Store.open(made, verify=True)
        refused = r"cannot be written \(Permission denied: .*another folder with --data\.root"
        with pytest.raises(DatasetError, match=rf"tmaze-9-30-seed0: the data {refused}"):
            generate_tmaze(common, 9, 30, 0)
        with pytest.raises(DatasetError, match=rf"below.walk: the data {refused}"):
            run(common / "below", workers=1)
    assert tree(common) == before


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(DatasetError, match=r"File exists: .*data\)\. Name another folder"):
        generate_tmaze(tmp_path / "data", 9, 20, 0)
    with pytest.raises(DatasetError, match=r"Not a directory: .*another folder with --data\.root"):
        generate_tmaze(tmp_path / "data" / "inner", 9, 20, 0)


@pytest.mark.parametrize("to", [convert, convert_to_minari])
def test_conversion_into_a_read_only_folder_is_refused(common, to):
    samples.write_d4rl(common / "file")
    source = open_source(common / "file")
    made = to(source, common / "made-v0")
    before = tree(common)
    with closed(common):
        assert to(source, common / "made-v0") == made
        with pytest.raises(DatasetError, match=r"other-v0: .* \(Permission denied.*Name another"):
            to(source, common / "other-v0")
        with pytest.raises(DatasetError, match=r"below.\w+-v0: .* \(Permission denied.*Name an"):
            to(source, common / "below" / "other-v0")
    assert tree(common) == before


def test_a_download_into_a_read_only_folder_is_refused(common):
    (common / "own").mkdir()
    (common / "own" / "file.bin").write_bytes(b"put here by hand")
    refused = r"Permission denied: .*another folder with --root"
    with closed(common, common / "own"):
        remote = Remote("http://127.0.0.1:9/file.bin", "own/file.bin")
        assert fetch(remote, common) == common / "own" / "file.bin"
        for path in ("new/file.bin", "own/other.bin"):
            remote = Remote("http://127.0.0.1:9/file.bin", path)
            with pytest.raises(DatasetError, match=refused):
                fetch(remote, common)
        with pytest.raises(DatasetError, match=refused):
            fetch_minari("mujoco/hopper/medium-v0", common)
    assert not (common / "own" / "file.bin.sha256").exists()


@needs_root
def test_unfinished_files_of_another_user_are_named_and_kept(common):
    """The folder is like /tmp: all users may write and only owners may remove files."""
    common.chmod(0o1777)
    (common / ".walk.partial-1").mkdir()
    (common / ".walk.csv.tmp").write_text("another's")
    with another_user():
        run(common, workers=1)
    store = Store.open(common / "walk", verify=True)
    np.testing.assert_array_equal(store.arrays["seeds"], SEEDS)
    assert table_path(common / "walk").read_text().startswith("seed,")
    assert (common / ".walk.csv.tmp").read_text() == "another's"
    (writing.partial_path(common / "other", SPEC, {"source": "x"})).mkdir()
    with (
        another_user(),
        pytest.raises(PermissionError, match=r"\.other\.partial-"),
        writing.open_writer(common / "other", SPEC, {"source": "x"}),
    ):
        pass


def test_a_user_without_a_home_finds_data_elsewhere(tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    with pytest.raises(DatasetError, match=r"medium-v0 is not there; get it with"):
        find_minari(tmp_path, "mujoco/hopper/medium-v0")
    with pytest.raises(DatasetError, match=r"hopper-medium-v2 is not there; get it with"):
        find_d4rl(tmp_path, "hopper-medium-v2")
    (tmp_path / "mine" / "mujoco/hopper/medium-v0/data").mkdir(parents=True)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "mine"))
    found = find_minari(tmp_path, "mujoco/hopper/medium-v0")
    assert found == tmp_path / "mine" / "mujoco/hopper/medium-v0"


@needs_root
def test_private_files_of_another_user_are_named(common):
    store = run(common, workers=1)
    for closed_off in (store / "manifest.json", store / "actions.npy", store):
        mode = closed_off.stat().st_mode
        closed_off.chmod(0o700 if closed_off.is_dir() else 0o600)
        with another_user(), pytest.raises(DatasetError, match="this user may not read it"):
            run(common, workers=1)
        closed_off.chmod(mode)
    common.chmod(0o700)
    with another_user(), pytest.raises(DatasetError, match="this user may not read it"):
        run(common, workers=1)
    common.chmod(0o755)
    with another_user():
        assert run(common, workers=1) == store
