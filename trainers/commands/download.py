"""Download a public data set by name; an interrupted download goes on.

    rate download hopper-medium-v2
    rate download mujoco/hopper/medium-v0
    rate download Breakout --checkpoints 1
    rate download --list

The names are those that --dataset and --game have in training. D4RL's go to data/d4rl, Minari's to
data/minari, DQN replay of Atari's games to data/dqn, where training and the command that is printed
look for them. Without a connection it says which file to get from where, and where to put it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from datamodules.downloads import fetch, fetch_minari
from datamodules.public_data import (
    CHECKPOINTS,
    Remote,
    find,
    names,
    next_commands,
    recognise,
)
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.convert import readable
from trainers.meter import Meter


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("download", __doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the data set")
    parser.add_argument("--list", action="store_true", help="list the names")
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="folder of data sets (default: data)"
    )
    parser.add_argument("--run", type=count, default=1, help="of a DQN: which of its five runs")
    parser.add_argument(
        "--checkpoints",
        type=count,
        default=CHECKPOINTS,
        help="of a DQN: how many of its last checkpoints, 1 million steps each (default: all 50)",
    )
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join([*names(), "mujoco/TASK/QUALITY-v0 and all others of Minari"]))
        return
    if options.name is None:
        parser.error("name a data set, or --list them")
    with user_errors():
        known = recognise(options.name)
        if known.source == "minari":
            made = fetch_minari(known.name, options.root / "minari")
        else:
            files = find(known, options.run, min(options.checkpoints, CHECKPOINTS))
            made = fetch_all(files, options.root)
    print(f"{made} is here. Next:")
    print("\n".join(f"  {command}" for command in next_commands(known, made, options.root)))


def fetch_all(files: Sequence[Remote], root: Path) -> Path:
    """Download files with a progress display. Returns the path of one file, or their folder."""
    path = root
    with Meter() as meter:
        for remote in files:
            show = partial(meter.show, Path(remote.path).name, amount=readable)
            path = fetch(remote, root, show)
    return path if len(files) == 1 else path.parent


if __name__ == "__main__":
    main()
