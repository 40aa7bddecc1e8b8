from __future__ import annotations

import fcntl
import os
import tarfile
import zipfile

import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.formats import find_store, open_source
from datamodules.readers import unknown_paths
from datamodules.source import raise_error
from tests.datamodules import samples

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
PAGES = {
    "a pointer": (POINTER, r"a Git LFS pointer .* 12345 bytes.*git lfs pull"),
    "a page": (b"\n <!DOCTYPE html>\n<html>log in</html>", r"a web page \(HTML\)"),
    "an error": (
        b"<?xml version='1.0'?><Error><Code>No</Code></Error>",
        "an error of a server",
    ),
    "json": (b'{"error": "not found"}', r'a text \(JSON\).*"not found"'),
    "nothing": (b"", "an empty file"),
}
NAMES = ("x.hdf5", "x.pkl", "x.npz", "x.parquet", "x.gz", "x-00000-of-00001", "x.tfrecord", "x.bin")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("page", PAGES)
def test_files_that_were_not_downloaded_are_described(tmp_path, name, page):
    contents, message = PAGES[page]
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(DatasetError, match=message) as error:
        open_source(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("write", [samples.write_rate_npz, samples.write_minari])
def test_git_lfs_pointers_in_a_folder_are_described(tmp_path, write):
    folder = write(tmp_path / "data")
    file = sorted(file for file in folder.rglob("*") if file.suffix in (".npz", ".hdf5"))[0]
    file.write_bytes(POINTER)
    with pytest.raises(DatasetError, match=rf"{file.name}: a Git LFS pointer"):
        open_source(folder)


def pack_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("episodes.pkl", "x")


def pack_tar(path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "data.hdf5")


OTHERS = {
    "zip": (pack_zip, r"a zip archive with episodes\.pkl; unpack it with: unzip x"),
    "tar": (pack_tar, "a tar archive; unpack it with: tar xf"),
    "array": (lambda path: np.save(path.open("wb"), np.zeros(3)), "single array.*numpy.savez"),
    "table": (
        lambda path: path.write_text("a,b\n1,2\n"),
        "(?s)a text that begins with 'a,b.*none of:.*savez",
    ),
    "unpacked": (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd\0\1"), "zstd; unpack it with"),
}


@pytest.mark.parametrize("suffix", ["", ".hdf5", ".dat"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_named(tmp_path, name, suffix):
    make, message = OTHERS[name]
    if name == "table" and suffix == ".hdf5":
        message = "not an HDF5 file, though its name says so"
    make(tmp_path / f"x{suffix}")
    with pytest.raises(DatasetError, match=message):
        open_source(tmp_path / f"x{suffix}")


def test_one_folder_too_high_or_too_low(tmp_path):
    folder = samples.write_minari(tmp_path / "all" / "mujoco", "hopper-v0")
    for low in (folder / "data", folder / "data" / "metadata.json"):
        with pytest.raises(DatasetError, match=rf"part of {folder}: a Minari data set"):
            open_source(low)
    (folder / "data" / "more").mkdir()
    np.savez(folder / "data" / "more" / "0.npz", x=np.zeros(3))  # of a format, but no data set
    with pytest.raises(DatasetError, match=rf"part of {folder}: a Minari data set"):
        open_source(folder / "data" / "more")
    for high in (tmp_path / "all", tmp_path / "all" / "mujoco"):
        with pytest.raises(DatasetError, match=rf"in it is {folder}: a Minari data set"):
            open_source(high)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="an empty folder"):
        open_source(tmp_path / "empty")
    (tmp_path / "some").mkdir()
    path = samples.write_d4rl(tmp_path / "some" / "x.hdf5")
    with pytest.raises(DatasetError, match=rf"in it is {path}: a D4RL file"):
        open_source(tmp_path / "some")


def test_a_file_that_another_process_holds_is_not_damaged(tmp_path):
    path = samples.write_d4rl(tmp_path / "x.hdf5")
    folder = samples.write_minari(tmp_path / "minari")
    for file, place in ((path, path), (folder / "data" / "main_data.hdf5", folder)):
        with file.open("r+b") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(DatasetError, match=r"another process has it open") as error:
                next(open_source(place).read(0, raise_error))
        assert "damaged" not in str(error.value)
    assert open_source(path).num_episodes == 3


@pytest.mark.parametrize("write", [samples.write_d4rl, samples.write_rate_npz])
def test_a_file_that_may_not_be_read_is_not_damaged(tmp_path, monkeypatch, write):
    path = write(tmp_path / "x")
    file = path if path.is_file() else path / "train_data_0.npz"
    monkeypatch.setattr(unknown_paths.os, "access", lambda place, mode: str(place) != str(file))
    if os.geteuid() == 0:  # root ignores permissions
        file.write_bytes(b"\x89HDF\r\n\x1a\n" if path.is_file() else b"PK")
        for other in path.glob("*.npz"):
            other.write_bytes(b"PK")
    else:
        file.chmod(0)
    with pytest.raises(DatasetError, match=rf"{file.name}: you may not read it"):
        open_source(path)


def test_training_reports_it_too(tmp_path):
    (tmp_path / "store").write_bytes(POINTER)
    with pytest.raises(DatasetError, match="it is a Git LFS pointer"):
        find_store(tmp_path / "store")
