"""Have an environment's expert play a data set, in parallel; a stopped collection goes on.

    rate collect minigrid
    rate collect vizdoom --data.num_episodes 5000 --data.max_length 150 \
        --env.pillar_steps 90
    rate collect memory_maze --data.workers 8 --data.noise 0.1
    rate collect CartPole-v1 --data.expert my_policies:ppo --data.max_length 500
    rate collect vizdoom --on ray --ray-address 10.0.0.1:6379

It takes the options of the environment's train script, and writes the same data as that script: the
store that models train on, and a table with seed, length, return and outcome of every episode.
`rate convert STORE data/minari/NAME-v0 --to minari` makes a Minari data set of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.episode_table import summarise, table_path
from datamodules.store import Store
from trainers.callbacks.progress import preparing
from trainers.cli import parse
from trainers.commands.console import make_parser, user_errors
from trainers.commands.engine_options import add_engine_options, engine_of
from trainers.registry import ENVIRONMENTS, environment_of_run, find_environment


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("collect", __doc__)
    parser.add_argument(
        "environment",
        help=f"what is played: {', '.join(ENVIRONMENTS)}, or one that a package registers",
    )
    add_engine_options(parser)
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    with user_errors():
        find_environment(options.environment)  # refuses one that does not exist
        config = parse(options.environment, rest).config
        environment = environment_of_run(config)
        console = Console()
        with (
            engine_of(options, console, config.data.workers),
            preparing(config.logging.progress, None) as tell,
        ):
            store = environment.prepare_data(config.data, config.max_length, tell)
        show_summary(store, console)


def show_summary(path: Path, console: Console) -> None:
    """Print the path of a data set and the statistics of its episodes.

    Raises:
        DatasetError: If the store or its table cannot be read.
    """
    store = Store.open(path)
    table = Table(title=f"{store.num_episodes} episodes, {store.num_steps} steps")
    for name in ("", "mean", "least", "greatest"):
        table.add_column(name, justify="left" if not name else "right")
    if table_path(path).is_file():
        rows = summarise(path)
    else:  # environments whose episodes are generated in one batch have no table
        returns, lengths = store.arrays["returns_to_go"][store.offsets[:-1]], store.lengths
        columns = {"length": lengths, "return": returns}
        rows = {
            name: (float(c.mean()), float(c.min()), float(c.max())) for name, c in columns.items()
        }
    for name, numbers in rows.items():
        table.add_row(name, *(f"{number:.4g}" for number in numbers))
    console.print(table)
    console.print(f"The store is {path}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
