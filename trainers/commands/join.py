"""Make one data set of the stores in a folder, without copying them.

    rate collect tmaze --data.root data/parts/a --data.seed 1
    rate join data/parts

Each sub-folder of the folder that is a store becomes a shard, in the order of their names. Shards
are opened when a step of theirs is sampled, so that data larger than memory are opened at once.
Commands take the folder as they take a store. Join it again after adding a store.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.joining import join_stores
from datamodules.shards import SHARDS
from trainers.commands.console import make_parser, user_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("join", __doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with the stores")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with user_errors():
        store = join_stores(options.folder)
        print(
            f"{store.path}: {len(store.manifest[SHARDS])} stores, {store.num_episodes:,} episodes, "
            f"{store.num_steps:,} steps"
        )
