"""Public data sets by name: where their files are, and how they come here whole."""

from __future__ import annotations

import base64
import difflib
import hashlib
import http.client
import os
import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.disks import make_folder, may_write, told_when_unwritable
from datamodules.episodes import DatasetError
from datamodules.mujoco_names import D4RL, read_name
from datamodules.npy import file_sha256
from datamodules.variables import environment_variable
from rate.errors import ConfigError

D4RL_URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2"
ATARI_URL = "https://storage.googleapis.com/atari-replay-datasets/dqn"
# Of the DQN Replay Dataset (Agarwal et al. 2020), as its folders are called.
GAMES = (
    *("AirRaid", "Alien", "Amidar", "Assault", "Asterix", "Asteroids", "Atlantis", "BankHeist"),
    *("BattleZone", "BeamRider", "Berzerk", "Bowling", "Boxing", "Breakout", "Carnival"),
    *("Centipede", "ChopperCommand", "CrazyClimber", "DemonAttack", "DoubleDunk"),
    *("ElevatorAction", "Enduro", "FishingDerby", "Freeway", "Frostbite", "Gopher", "Gravitar"),
    *("Hero", "IceHockey", "Jamesbond", "JourneyEscape", "Kangaroo", "Krull", "KungFuMaster"),
    *("MontezumaRevenge", "MsPacman", "NameThisGame", "Phoenix", "Pitfall", "Pong", "Pooyan"),
    *("PrivateEye", "Qbert", "Riverraid", "RoadRunner", "Robotank", "Seaquest", "Skiing"),
    *("Solaris", "SpaceInvaders", "StarGunner", "Tennis", "TimePilot", "Tutankham", "UpNDown"),
    *("Venture", "VideoPinball", "WizardOfWor", "YarsRevenge", "Zaxxon"),
)
CHECKPOINTS = 50  # of each of the five runs
_PARTS = ("observation", "action", "reward", "terminal")
_CHUNK_BYTES = 1 << 20
_TIMEOUT = 60.0
_TRIES = 5
_MINARI = re.compile(r"[\w-]+(/[\w-]+)*/[\w-]+-v\d+")
_ELSEWHERE = "Name another folder with --root."
# What a cut connection raises, on its way and between two chunks.
_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)

OnBytes = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Remote:
    """A file of a public data set.

    Attributes:
        url: Where it is.
        path: Where it goes, relative to the folder of data sets.
        note: What to know where it cannot be had.
    """

    url: str
    path: str
    note: str = ""


@dataclass(frozen=True)
class Known:
    """A public data set, by whichever of its names.

    Attributes:
        name: The one that `--dataset` or `--game` has in training.
        source: Who has it.
    """

    name: str
    source: Literal["d4rl", "minari", "dqn"]


def names() -> list[str]:
    """The data sets that there are, apart from those of Minari."""
    return [*D4RL, *GAMES]


def recognise(name: str) -> Known:
    """The data set of a name: one that training takes, `dqn-breakout`, or one of Minari's.

    Raises:
        DatasetError: If there is none; names the nearest, or says how the data are made here.
    """
    try:
        found = read_name(name)
    except ConfigError:
        return _other(name)
    if found.source == "sac":
        raise DatasetError(
            f"{name} is not downloaded, but made here by an agent that learns: python "
            f"scripts/train_mujoco.py --dataset {name}"
        )
    return Known(found.name, found.source)


def _other(name: str) -> Known:
    """A data set of Atari, or of Minari but not of MuJoCo."""
    games = {game.lower(): game for game in GAMES}
    word = name.lower().removeprefix("dqn-").replace("-", "").replace("_", "")
    if word in games:
        return Known(games[word], "dqn")
    if "/" in name:
        if _MINARI.fullmatch(name):
            return Known(name, "minari")
        raise DatasetError(
            f"'{name}' is no name of a Minari data set, which is like mujoco/hopper/medium-v0 and "
            "ends with its version"
        )
    known = {**{known: known for known in D4RL}, **games}
    close = difflib.get_close_matches(name.lower().removeprefix("dqn-"), known, n=1)
    hint = f" Did you mean {known[close[0]]}?" if close else ""
    raise DatasetError(
        f"There is no public data set '{name}'.{hint} There are D4RL's ({', '.join(D4RL[:3])}, "
        f"...), DQN replay of Atari's games ({', '.join(GAMES[:3])}, ...), which --list lists, and "
        "Minari's, by their names: mujoco/hopper/medium-v0"
    )


def find(known: Known, run: int = 1, checkpoints: int = CHECKPOINTS) -> list[Remote]:
    """The files of a data set that is not Minari's.

    Args:
        known: The data set.
        run: Which of the five runs of a DQN.
        checkpoints: How many of its last checkpoints.
    """
    if known.source == "d4rl":
        task, _, rest = known.name.partition("-")
        file = f"{task}_{rest.removesuffix('-v2').replace('-', '_')}-v2.hdf5"
        return [Remote(f"{D4RL_URL}/{file}", f"d4rl/{file}")]
    game = known.name
    note = (
        "The public bucket has refused downloads since 2025. RL Unplugged has the same data as "
        "TFRecords, which scripts/convert.py reads, and scripts/collect.py makes data of your own."
    )
    files = (
        f"$store$_{part}_ckpt.{number}.gz"
        for number in range(CHECKPOINTS - checkpoints, CHECKPOINTS)
        for part in _PARTS
    )
    return [
        Remote(
            f"{ATARI_URL}/{game}/{run}/replay_logs/{file.replace('$', '%24')}",
            f"dqn/{game}/{run}/replay_logs/{file}",
            note,
        )
        for file in files
    ]


def next_commands(known: Known, made: Path, root: Path) -> list[str]:
    """What to type once a data set is here, each command whole as it stands.

    Args:
        known: The data set.
        made: Its file or folder.
        root: The folder of data sets.
    """
    store = root / known.name.lower().replace("/", "-")
    convert = shlex.join(["python", "scripts/convert.py", str(made), str(store)])
    if known.source == "dqn":
        train = ["train_atari.py", "--game", known.name, "--data.store", str(store)]
        return [convert, shlex.join(["python", f"scripts/{train[0]}", *train[1:]])]
    try:
        read_name(known.name)
    except ConfigError:  # of Minari, and not of a task that is trained on by name
        return [convert]
    train = ["python", "scripts/train_mujoco.py", "--model_mode", "DT", "--dataset", known.name]
    return [shlex.join(train if root == Path("data") else [*train, "--data.root", str(root)])]


def fetch(remote: Remote, folder: Path | str, on_bytes: OnBytes | None = None) -> Path:
    """Get a file, unless it is there, and go on where an earlier try was cut off.

    Until it is whole it has the suffix `.part`. Its SHA-256 is kept beside it in a `.sha256` file,
    as `sha256sum` writes them; a file that is there is compared with it.

    Args:
        remote: The file.
        folder: The folder of data sets.
        on_bytes: Told the bytes that are here, and how many there are if that is known.

    Returns:
        Where the file is.

    Raises:
        DatasetError: If it cannot be had, is not what the server says it is, or the one that is
            there has changed. The message says which file to get from where and to put where.
    """
    path = Path(folder) / remote.path
    if path.is_file():
        _compare(path)
        return path
    make_folder(path.parent, DatasetError, str(path), _ELSEWHERE)
    with told_when_unwritable(DatasetError, str(path), f"{_ELSEWHERE} Or make room."):
        _download(remote, path, on_bytes or (lambda done, total: None))
    return path


def _download(remote: Remote, path: Path, tell: OnBytes) -> None:
    """Receive a file under another name until it is whole and known to be right."""
    part = path.with_name(f"{path.name}.part")
    checksum, reason = None, "the connection is cut again and again"
    for _ in range(_TRIES):
        before = part.stat().st_size if part.exists() else 0
        try:
            checksum = _receive(remote.url, part, tell)
            break
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            raise _by_hand(remote, path, reason) from error
        except _NETWORK as error:
            reason = str(getattr(error, "reason", error))
            if not part.exists() or part.stat().st_size == before:  # nothing came: no connection
                raise _by_hand(remote, path, reason) from error
    else:
        raise _by_hand(remote, path, reason)
    _check_md5(part, checksum)
    _record(path, part)
    part.replace(path)


def fetch_minari(name: str, folder: Path | str) -> Path:
    """Get a data set of Minari's with Minari itself, unless it is there or among Minari's own.

    What was downloaded before an interruption is kept in a hidden folder and gone on with.

    Raises:
        DatasetError: If it cannot be had; says what to get from where and to put where.
    """
    import minari

    folder = Path(folder).absolute()
    path, unfinished = folder / name, folder / ".downloading"
    if path.is_dir():
        return path
    theirs = os.environ.get("MINARI_DATASETS_PATH")
    if theirs and (Path(theirs) / name / "data").is_dir():  # where training looks as well
        return Path(theirs) / name
    for made in (unfinished, path.parent):
        make_folder(made, DatasetError, str(path), _ELSEWHERE)
    try:
        with (
            told_when_unwritable(DatasetError, str(path), f"{_ELSEWHERE} Or make room."),
            environment_variable("MINARI_DATASETS_PATH", str(unfinished)),
        ):
            minari.download_dataset(name, force_download=True)  # goes on with what is there
            (unfinished / name).rename(path)
    except DatasetError:
        raise
    except ImportError as error:
        raise DatasetError(
            f"{name}: Minari downloads with a package that is not installed ({error}); "
            "make install EXTRAS=minari"
        ) from error
    except Exception as error:  # whatever the hub's client of the day raises
        repository = name.partition("/")[0]
        remote = Remote(f"https://huggingface.co/datasets/farama-minari/{repository}", name)
        raise _by_hand(remote, path, str(error) or type(error).__name__) from error
    return path


def _receive(url: str, part: Path, tell: OnBytes) -> str | None:
    """Append what is missing of a file; returns its MD5 if the server says it."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if whole == str(done):
                return None  # all of it was here
            part.unlink()  # another file: from the beginning
            return _receive(url, part, tell)
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = done if resumed else 0
        left = response.headers.get("Content-Length")
        total = None if left is None else done + int(left)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                tell(done, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise ConnectionError(f"cut off after {done} of {total} bytes")
        hashes: str = response.headers.get("x-goog-hash", "")
    return next((h[len("md5=") :] for h in hashes.split(",") if h.startswith("md5=")), None)


def _check_md5(part: Path, wanted: str | None) -> None:
    if wanted is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in _chunks(part):
        digest.update(chunk)
    if base64.b64encode(digest.digest()).decode() != wanted:
        part.unlink()
        raise DatasetError(f"{part}: not what the server has (MD5 differs); removed, try again")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _side_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _record(path: Path, part: Path) -> None:
    _side_file(path).write_text(f"{file_sha256(part)}  {path.name}\n", encoding="utf-8")


def _compare(path: Path) -> None:
    """Compare a file with the checksum of when it was downloaded, if it was."""
    side = _side_file(path)
    if not side.is_file():  # put there by hand, perhaps in a folder that may only be read
        if may_write(side.parent):
            _record(path, path)
    elif side.read_text(encoding="utf-8").split()[:1] != [file_sha256(path)]:
        raise DatasetError(
            f"{path}: changed since it was downloaded (SHA-256 differs from {side.name}); delete "
            "both and download it again"
        )


def _by_hand(remote: Remote, path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{path.name} cannot be downloaded: {reason}. Get it on another machine from\n  "
        f"{remote.url}\nand put it here as\n  {path.absolute()}\n{remote.note}".rstrip()
    )
