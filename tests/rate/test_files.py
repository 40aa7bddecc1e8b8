"""Files are on the disk before they have their names, and nothing is written through a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rate.files import draft_of, remove_drafts, write_atomic
from rate.weights import DESCRIPTION, WEIGHTS, SavedModel, save_model
from tests.factories import make_model, make_spec

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc to name open files"
)


class Recorder:
    """What is made durable and renamed, in order: `("sync", name, bytes)`, `("rename", name)`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[object, ...]] = []
        sync, replace = os.fsync, os.replace

        def record_sync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            size = "folder" if path.is_dir() else path.stat().st_size
            self.calls.append(("sync", path.name, size))
            sync(descriptor)

        def record_rename(old: Path, new: Path) -> None:
            self.calls.append(("rename", Path(old).name, Path(new).name))
            replace(old, new)

        monkeypatch.setattr(os, "fsync", record_sync)
        monkeypatch.setattr(os, "replace", record_rename)
        monkeypatch.setattr(Path, "replace", lambda old, new: record_rename(old, new))


def durable(path: Path) -> list[tuple[object, ...]]:
    """The calls that make a file safe: all of its content, then its name, then its folder."""
    draft = draft_of(path).name
    return [
        ("sync", draft, path.stat().st_size),
        ("rename", draft, path.name),
        ("sync", path.parent.name, "folder"),
    ]


@needs_proc
def test_content_is_durable_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, path = Recorder(monkeypatch), tmp_path / "file"
    write_atomic(path, b"content")
    assert recorder.calls == durable(path)
    assert path.read_bytes() == b"content"


@needs_proc
def test_weights_are_durable_before_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, folder = Recorder(monkeypatch), tmp_path / "best"
    folder.mkdir()
    save_model(SavedModel(make_model("rmt"), make_spec()), folder)
    assert recorder.calls == [*durable(folder / WEIGHTS), *durable(folder / DESCRIPTION)]


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"before")

    def fail(descriptor: int) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no"):
        write_atomic(path, b"after")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"before"]


def test_a_link_in_the_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"precious")
    draft_of(path).symlink_to(victim)
    write_atomic(path, b"content")
    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == b"content"
    assert not path.is_symlink()


def test_drafts_of_the_killed_are_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("file", ".hidden", "file.tmp-1")]
    for path in (*kept, tmp_path / ".last.ckpt.tmp-77", tmp_path / ".config.yaml.tmp-1"):
        path.touch()
    remove_drafts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
