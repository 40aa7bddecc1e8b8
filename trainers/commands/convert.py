"""Convert a data set of any known format into a store to train on, or into a Minari data set.

    rate convert data/d4rl/hopper_medium-v2.hdf5 data/hopper-medium
    rate convert path/to/npz-folder data/two-colors --environment vizdoom
    rate convert data/hopper-medium data/minari/hopper-v0 --to minari
    rate train mujoco --data.store data/hopper-medium

The format is recognised. Episodes are streamed: memory does not grow with the data. The same
command resumes an interrupted conversion into a store; one to Minari starts from the beginning. It
does nothing if the result exists. The provenance of the result has the SHA-256 of every source
file.

--environment and its options (--env.task hopper, ...) give the spaces of an environment of this
project; without it they are read from the data set, or inferred from its contents.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from datamodules.compatibility import unsupported_spaces
from datamodules.convert import (
    convert,
    convert_to_minari,
    narrowed,
    predicted_bytes,
)
from datamodules.episodes import DatasetError
from datamodules.formats import open_source
from datamodules.source import Source
from rate.envs.spec import EnvironmentSpec
from rate.progress import OnProgress
from trainers.cli import parse
from trainers.commands.console import make_parser, user_errors
from trainers.commands.data_options import add_data_options, data_options
from trainers.commands.environment_options import environment_settings
from trainers.meter import Meter
from trainers.registry import ENVIRONMENTS, find_environment, get_environment

ENVIRONMENT_HELP = (
    f"what the data are of: {', '.join(ENVIRONMENTS)}, an id of Gymnasium, or an import path"
)
SHOWN = 10  # skipped episodes whose errors are printed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("convert", __doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="file or folder to read")
    parser.add_argument("destination", type=Path, metavar="DEST", help="folder to make")
    parser.add_argument("--to", choices=("store", "minari"), default="store", help="what to make")
    parser.add_argument("--environment", help=ENVIRONMENT_HELP)
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out episodes that are not valid"
    )
    add_data_options(parser)
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if rest and options.environment is None:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    console, skipped = Console(), Skipped()
    with user_errors():
        spec = None if options.environment is None else environment_spec(options.environment, rest)
        source = open_source(options.source, data_options(options, spec))
        describe(source, options.to, console)
        with progress() as tell:
            make = convert if options.to == "store" else convert_to_minari
            on_bad = skipped if options.skip_bad else refuse
            made = make(source, options.destination, on_bad=on_bad, on_progress=tell)
        skipped.show(console)
        console.print(f"{made} is made.", highlight=False, markup=False, soft_wrap=True)


def environment_spec(name: str, arguments: Sequence[str]) -> EnvironmentSpec:
    """Returns the specification of an environment with the options on the command line."""
    if find_environment(name).options is None:  # options are arguments of its constructor
        return get_environment(name, environment_settings(arguments)).spec
    config = parse(name, arguments).config
    return get_environment(config.environment, config.env).spec


def describe(source: Source, to: str, console: Console) -> None:
    """Print the recognised format, the size of the data set and of the result, and notes."""
    sizes = [
        f"{number:,} {name}"
        for number, name in ((source.num_episodes, "episodes"), (source.num_steps, "steps"))
        if number is not None
    ]
    size = predicted_bytes(source)
    room = "" if size is None else f"; the {to} will take about {readable(size)}"
    text = f"{source.path} ({source.format}): {', '.join(sizes) or 'of unknown size'}{room}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    for_store = [*narrowed(source), *unsupported_spaces(source.spec)] if to == "store" else []
    for note in [*source.notes, *for_store]:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def readable(size: float) -> str:
    """Returns a number of bytes as text with a decimal unit, for example `1.5 MB`."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    step = min(int(math.log10(max(size, 1)) // 3), len(units) - 1)
    return f"{size / 1000**step:.3g} {units[step]}"


def refuse(error: DatasetError) -> NoReturn:
    """End the conversion at an invalid episode.

    Raises:
        DatasetError: Always.
    """
    raise DatasetError(f"{error} (--skip-bad leaves out episodes that are not valid)") from error


class Skipped:
    """Counts skipped episodes, and prints the errors of the first `SHOWN`."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, error: DatasetError) -> None:
        self.number += 1
        if self.number <= SHOWN:
            print(f"skipped: {error}", file=sys.stderr)

    def show(self, console: Console) -> None:
        if self.number:
            console.print(f"Left out as not valid: {self.number} episodes.")


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Yields a function that shows the progress of each phase of a conversion."""
    with Meter() as meter:
        yield meter.show


if __name__ == "__main__":
    main()
