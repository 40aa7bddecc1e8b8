"""The public data sets that are known: their names, addresses, and the commands to use them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.episodes import DatasetError
from datamodules.mujoco_names import D4RL, read_name
from rate.advice import command
from rate.errors import ConfigError

D4RL_URL = "https://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2"
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
_MINARI = re.compile(r"[\w-]+(/[\w-]+)*/[\w-]+-v\d+")


@dataclass(frozen=True)
class Remote:
    """A file of a public data set.

    Attributes:
        url: Its address.
        path: Its path below the data root.
        note: A hint if the download fails.
    """

    url: str
    path: str
    note: str = ""


@dataclass(frozen=True)
class Known:
    """A public data set.

    Attributes:
        name: Its name in training, for `--dataset` or `--game`.
        source: Its publisher.
    """

    name: str
    source: Literal["d4rl", "minari", "dqn"]


def names() -> list[str]:
    """Returns the names of the known data sets, apart from those of Minari."""
    return [*D4RL, *GAMES]


def recognise(name: str) -> Known:
    """Returns the data set of a name, as training, `rate download` or Minari call it.

    Raises:
        DatasetError: If there is none; names the nearest, or says how the data are made here.
    """
    try:
        found = read_name(name)
    except ConfigError:
        return _other(name)
    if found.source == "sac":
        raise DatasetError(
            f"{name} is not downloaded, but made here by an agent that learns: "
            f"{command('train', 'mujoco', '--dataset', name)}"
        )
    return Known(found.name, found.source)


def _other(name: str) -> Known:
    """Returns a data set of Atari, or of Minari but not of MuJoCo."""
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
    """Returns the files of a data set that is not Minari's.

    Args:
        known: The data set.
        run: The number of the DQN run, of five.
        checkpoints: The number of checkpoints, counted from the last.
    """
    if known.source == "d4rl":
        task, _, rest = known.name.partition("-")
        file = f"{task}_{rest.removesuffix('-v2').replace('-', '_')}-v2.hdf5"
        return [Remote(f"{D4RL_URL}/{file}", f"d4rl/{file}")]
    game = known.name
    note = (
        "The public bucket has refused downloads since 2025. RL Unplugged has the same data as "
        f"TFRecords, which `{command('convert')}` reads, and `{command('collect')}` makes data of "
        "your own."
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
    """Returns the commands that use a downloaded data set, each complete.

    Args:
        known: The data set.
        made: Its file or folder.
        root: The data root.
    """
    store = root / known.name.lower().replace("/", "-")
    convert = command("convert", str(made), str(store))
    if known.source == "dqn":
        game = ("--game", known.name, "--data.store", str(store))
        return [convert, command("train", "atari", *game)]
    try:
        read_name(known.name)
    except ConfigError:  # of Minari, and not of a task that is trained on by name
        return [convert]
    place = () if root == Path("data") else ("--data.root", str(root))
    return [command("train", "mujoco", "--model_mode", "DT", "--dataset", known.name, *place)]
