"""Downloads that another server, another version or another process gets in the way of."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datamodules import DatasetError, downloads
from datamodules.downloads import fetch
from datamodules.public_data import Remote
from rate.files import draft_of, write_atomic

MAGIC = b"\x89HDF\r\n\x1a\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `body` of the server, of version `tag`; cuts the next answer after `cut` bytes."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked += 1
        span, known = self.headers.get("Range"), self.headers.get("If-Range")
        start = int(span[6:-1]) if span and known in (None, server.tag) else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        time.sleep(server.delay)
        self.wfile.write(server.body[start : server.cut])
        if server.cut is not None:
            server.cut = None
            self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        found: Any = made
        found.asked, found.cut, found.delay = 0, None, 0.0
        found.tag, found.body = '"1"', MAGIC + b"1" * 5000
        found.remote = Remote(f"http://127.0.0.1:{made.server_port}/x.hdf5", "x.hdf5")
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        made.shutdown()
        thread.join()


def test_versions_are_not_mixed(server: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(downloads, "_TRIES", 1)
    server.cut = 2000
    with pytest.raises(DatasetError, match="cut off"):
        fetch(server.remote, tmp_path)
    server.tag, server.body = '"2"', MAGIC + b"2" * 5000
    assert fetch(server.remote, tmp_path).read_bytes() == server.body
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hdf5", "x.hdf5.sha256"]


def test_a_page_to_sign_in_is_refused(server: Any, tmp_path: Path) -> None:
    server.body = b"<!DOCTYPE html><html>Welcome to our network. Sign in</html>"
    with pytest.raises(DatasetError, match="perhaps a page to sign in"):
        fetch(server.remote, tmp_path)
    assert not list(tmp_path.glob("x.hdf5*"))


def test_an_address_that_is_not_https_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="it is not https"):
        fetch(Remote("http://example.invalid/x.hdf5", "x.hdf5"), tmp_path)


def test_of_two_downloads_at_once_one_is_made(server: Any, tmp_path: Path) -> None:
    server.delay = 0.3
    both = [threading.Thread(target=fetch, args=(server.remote, tmp_path)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert server.asked == 1
    assert (tmp_path / "x.hdf5").read_bytes() == server.body


def test_drafts_cannot_be_guessed_and_old_ones_are_removed(tmp_path: Path) -> None:
    name = draft_of(tmp_path / "file").name
    assert len(name.rpartition("-")[2]) == 16
    old, new = tmp_path / ".file.tmp-1-ab", tmp_path / ".file.tmp-2-cd"
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    write_atomic(tmp_path / "file", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "file"]
