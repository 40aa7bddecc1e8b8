"""Convert a data set of any known format into a store to train on, or into a Minari data set.

    rate convert data/d4rl/hopper_medium-v2.hdf5 data/hopper-medium
    rate convert path/to/npz-folder data/two-colors --environment vizdoom
    rate convert data/hopper-medium data/minari/hopper-v0 --to minari
    rate train mujoco --data.store data/hopper-medium
    rate convert path/to/hf-model models/dt --target-return 3600 --statistics states.json

The format is recognised. Episodes are streamed: memory does not grow with the data. The same
command resumes an interrupted conversion into a store; one to Minari starts from the beginning. It
does nothing if the result exists. The provenance of the result has the SHA-256 of every source
file.

A Decision Transformer of Hugging Face (config.json, model.safetensors) becomes a model to act with.
It does not say how its data were scaled: --statistics names a JSON file with the lists state_mean
and state_std of its model card.

--environment and its options (--env.task hopper, ...) give the spaces of an environment of this
project; without it they are read from the data set, or inferred from its contents.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

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
from rate.errors import ConfigError, parsing
from rate.files import load_json
from rate.huggingface import RETURN_SCALE, is_checkpoint, load_decision_transformer
from rate.progress import OnProgress
from rate.weights import save_model
from trainers.cli import parse
from trainers.commands.console import make_parser, user_errors
from trainers.commands.data_options import add_data_options, data_options
from trainers.commands.environment_options import environment_settings
from trainers.commands.outputs import output_errors
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
    parser.add_argument("--target-return", type=float, help="of a model of Hugging Face")
    parser.add_argument(
        "--return-scale",
        type=float,
        default=RETURN_SCALE,
        help=f"that its returns were divided by (default: {RETURN_SCALE:g})",
    )
    parser.add_argument("--statistics", type=Path, metavar="FILE", help="of its states")
    add_data_options(parser)
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if rest and options.environment is None:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    console, skipped = Console(), Skipped()
    with user_errors():
        spec = None if options.environment is None else environment_spec(options.environment, rest)
        if is_checkpoint(options.source):
            made = convert_model(options, spec)
            console.print(f"{made} is made.", highlight=False, markup=False, soft_wrap=True)
            return
        source = open_source(options.source, data_options(options, spec))
        describe(source, options.to, console)
        with progress() as tell:
            make = convert if options.to == "store" else convert_to_minari
            on_bad = skipped if options.skip_bad else refuse
            made = make(source, options.destination, on_bad=on_bad, on_progress=tell)
        skipped.show(console)
        console.print(f"{made} is made.", highlight=False, markup=False, soft_wrap=True)


def convert_model(options: argparse.Namespace, spec: EnvironmentSpec | None) -> Path:
    """Makes a model of one of Hugging Face; returns its folder.

    Raises:
        ConfigError: If an option is missing or does not fit the model, or the result exists.
        WeightsError: If the model is damaged, or of another architecture.
    """
    made: Path = options.destination
    if options.target_return is None:
        raise ConfigError("A model needs --target-return, the return-to-go at the first step.")
    if made.exists():
        raise ConfigError(f"{made} exists; remove it, or name another folder.")
    statistics = {} if options.statistics is None else read_statistics(options.statistics)
    saved = load_decision_transformer(
        options.source,
        target_return=options.target_return,
        return_scale=options.return_scale,
        spec=spec,
        **statistics,
    )
    with output_errors(made):
        save_model(saved, made)
    return made


def read_statistics(path: Path) -> dict[str, Any]:
    """Returns `state_mean` and `state_std` of a JSON file.

    Raises:
        ConfigError: If it cannot be read, or has neither.
    """
    with parsing(ConfigError, path, "is no JSON file with the lists state_mean and state_std"):
        found = load_json(path)
        return {name: list(map(float, found[name])) for name in ("state_mean", "state_std")}


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
