from __future__ import annotations

import base64
import hashlib
import http.server
import re
import threading
from contextlib import contextmanager

import pytest

from datamodules import downloads
from datamodules.downloads import fetch
from datamodules.episodes import DatasetError
from datamodules.local_data import find_d4rl
from datamodules.mujoco_names import D4RL
from datamodules.public_data import GAMES, Known, Remote, find, names, recognise
from rate.envs.atari_games import NUM_ACTIONS, rom_name, title
from trainers.cli import parse
from trainers.commands import download

DATA = bytes(range(256)) * 40_000  # 10 MB


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA with range requests; attributes of the server select the faults."""

    def do_GET(self):
        server, span = self.server, self.headers.get("Range")
        server.asked.append(span)
        if self.path != "/data.bin":
            self.send_error(404)
            return
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and server.ranges else 0
        if start >= len(DATA):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        if server.md5:
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={server.md5}")
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(DATA)
        self.wfile.write(DATA[start : start + cut])
        if cut < len(DATA):
            self.connection.close()

    def log_message(self, *_):
        pass


@contextmanager
def serving(cuts=(), ranges=True, md5=None):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.cuts, server.ranges, server.md5 = [], list(cuts), ranges, md5
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server, Remote(f"http://127.0.0.1:{server.server_port}/data.bin", "x/data.bin")
        finally:
            server.shutdown()
            thread.join()


def check(path):
    assert path.read_bytes() == DATA
    digest = hashlib.sha256(DATA).hexdigest()
    side = path.with_name("data.bin.sha256")
    assert side.read_text() == f"{digest}  data.bin\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["data.bin", "data.bin.sha256"]


@pytest.mark.parametrize("cuts", [(), (3_000_000,), (3_000_000, 10, 2_000_000)])
def test_interrupted_connections_are_resumed(tmp_path, cuts):
    seen = []
    with serving(cuts) as (server, remote):
        path = fetch(remote, tmp_path, lambda done, total: seen.append((done, total)))
        spans = [None]
        for cut in cuts:
            before = 0 if spans[-1] is None else int(spans[-1][6:-1])
            spans.append(f"bytes={before + cut}-")
        assert server.asked == spans
        check(path)
        assert fetch(remote, tmp_path) == path  # no further request
        assert server.asked == spans
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_later_run_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_TRIES", 1)
    with serving([1_000_000]) as (server, remote):
        with pytest.raises(DatasetError, match=r"again and again|cut off") as error:
            fetch(remote, tmp_path)
        assert str(tmp_path / "x" / "data.bin") in str(error.value)
        check(fetch(remote, tmp_path))
        assert server.asked == [None, "bytes=1000000-"]


def test_a_server_without_ranges_sends_everything_again(tmp_path):
    with serving([1_000_000], ranges=False) as (_, remote):
        check(fetch(remote, tmp_path))


def test_a_complete_part_file_is_renamed_or_replaced(tmp_path):
    (tmp_path / "x").mkdir()
    part = tmp_path / "x" / "data.bin.part"
    part.write_bytes(DATA)
    with serving() as (_, remote):
        check(fetch(remote, tmp_path))
        (tmp_path / "x" / "data.bin").unlink()
        part.write_bytes(DATA + b"of another file")
        check(fetch(remote, tmp_path))


def test_checksums(tmp_path):
    right = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    with serving(md5=right) as (_, remote):
        path = fetch(remote, tmp_path)
        check(path)
        path.write_bytes(DATA[:-1])
        with pytest.raises(DatasetError, match="changed since it was downloaded"):
            fetch(remote, tmp_path)
    with (
        serving(md5="AAAA") as (_, remote),
        pytest.raises(DatasetError, match="not what the server has"),
    ):
        fetch(remote, tmp_path / "other")
    assert not list((tmp_path / "other" / "x").iterdir())


def test_without_a_connection_the_manual_steps_are_printed(tmp_path):
    remote = Remote("http://127.0.0.1:9/hopper.hdf5", "d4rl/hopper.hdf5", "Or make it.")
    with pytest.raises(DatasetError) as error:
        fetch(remote, tmp_path)
    message = str(error.value)
    assert remote.url in message
    assert str(tmp_path / "d4rl" / "hopper.hdf5") in message
    assert message.endswith("Or make it.")
    with serving() as (server, _):
        missing = Remote(f"http://127.0.0.1:{server.server_port}/absent", "x/absent")
        with pytest.raises(DatasetError, match="the server answers 404"):
            fetch(missing, tmp_path)


def test_the_table():
    assert names()[: len(D4RL)] == list(D4RL)
    assert len(set(GAMES)) == 60
    (file,) = find(recognise("walker2d-medium-replay-v2"))
    assert file.url.endswith("offline_rl/gym_mujoco_v2/walker2d_medium_replay-v2.hdf5")
    assert file.path == "d4rl/walker2d_medium_replay-v2.hdf5"
    files = find(recognise("dqn-breakout"), run=2, checkpoints=2)
    assert len(files) == 8
    assert files[0].url.endswith("dqn/Breakout/2/replay_logs/%24store%24_observation_ckpt.48.gz")
    assert files[0].path == "dqn/Breakout/2/replay_logs/$store$_observation_ckpt.48.gz"


# The emulator's spelling of the games.
ROMS = {*NUM_ACTIONS, *(re.sub("(?<!^)([A-Z])", r"_\1", game).lower() for game in GAMES)}


@pytest.mark.parametrize("name", [*D4RL, *NUM_ACTIONS, *map(title, NUM_ACTIONS), *GAMES])
def test_every_data_set_name_of_training_is_known(name):
    found = recognise(name).name
    assert found == (name if name in D4RL else title(rom_name(name, ROMS)))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("hopper-medium", Known("hopper-medium-v2", "d4rl")),
        ("6", Known("hopper-medium-v2", "d4rl")),
        ("mujoco/hopper/expert-v0", Known("mujoco/hopper/expert-v0", "minari")),
        ("D4RL/pen/human-v2", Known("D4RL/pen/human-v2", "minari")),
        ("dqn-road-runner", Known("RoadRunner", "dqn")),
        ("ms_pacman", Known("MsPacman", "dqn")),
        ("SPACEINVADERS", Known("SpaceInvaders", "dqn")),
    ],
)
def test_other_forms_of_names(name, known):
    assert recognise(name) == known


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hopper-expert-sac", r"made here.*train_mujoco\.py --dataset hopper-expert-sac"),
        ("breakot", r"'breakot'\. Did you mean Breakout\?"),
        ("dqn-breakot", "Did you mean Breakout"),
        ("hoper-medium-v2", "Did you mean hopper-medium-v2"),
        ("zzzz", "There is no public data set 'zzzz'. There are D4RL's"),
        ("mujoco/hopper/expert", "ends with its version"),
        ("../x-v0", "no name of a Minari data set"),
        ("/etc/x-v0", "no name of a Minari data set"),
    ],
)
def test_an_unknown_name_is_refused(name, message):
    with pytest.raises(DatasetError, match=message):
        recognise(name)


def test_the_command(tmp_path, monkeypatch, capsys, error_of):
    with serving() as (_, remote):
        monkeypatch.setattr(download, "find", lambda *_: [remote])
        download.main(["hopper-medium", "--root", str(tmp_path)])
    train = f"train_mujoco.py --model_mode DT --dataset hopper-medium-v2 --data.root {tmp_path}"
    assert train in capsys.readouterr().out
    check(tmp_path / "x" / "data.bin")
    monkeypatch.undo()
    download.main(["--list"])
    assert "hopper-medium-v2" in capsys.readouterr().out
    assert "There is no public data set 'hoper'" in error_of(download.main, ["hoper"])
    assert "name a data set" in error_of(download.main, [])


def test_printed_commands_find_the_download(tmp_path, monkeypatch, capsys):
    """The commands printed afterwards name the downloaded data as the other scripts expect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "fetch", lambda remote, root, *_: root / remote.path)
    download.main(["Breakout", "--checkpoints", "1"])
    first, second = map(str.strip, capsys.readouterr().out.splitlines()[1:])
    assert first == "rate convert data/dqn/Breakout/1/replay_logs data/breakout"
    assert second.startswith("rate train atari ")
    assert second == "rate train atari --game Breakout --data.store data/breakout"
    download.main(["hopper-medium-v2"])
    message, command = capsys.readouterr().out.splitlines()
    assert parse("mujoco", command.split()[3:]).config.data.dataset == "hopper-medium-v2"
    path = tmp_path / message.partition(" is here")[0]
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_d4rl(tmp_path / "data", "hopper-medium-v2") == path


def test_minari_downloads_its_own_data(tmp_path, monkeypatch, capsys, error_of):
    import minari

    from tests.datamodules import samples

    def here(name, force_download):
        samples.write_minari(downloads.os.environ["MINARI_DATASETS_PATH"], name)

    monkeypatch.setattr(minari, "download_dataset", here)
    arguments = ["test/nested-v0", "--root", str(tmp_path)]
    download.main(arguments)
    made = tmp_path / "minari" / "test" / "nested-v0"
    assert (made / "data").is_dir()
    assert f"convert.py {made} {tmp_path / 'test-nested-v0'}" in capsys.readouterr().out
    monkeypatch.setattr(minari, "download_dataset", lambda *_, **__: 1 / 0)
    download.main(arguments)  # it is here
    arguments[0] = "test/other-v0"
    samples.write_minari(tmp_path / "mine", "test/other-v0")
    with monkeypatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "mine"))
        download.main(arguments)
    assert f"convert.py {tmp_path / 'mine' / 'test' / 'other-v0'} " in capsys.readouterr().out
    assert "put it here as" in error_of(download.main, arguments)
    assert not (tmp_path / "minari" / "test" / "other-v0").exists()
