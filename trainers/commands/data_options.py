"""Command-line options that describe a data set, shared by the commands."""

from __future__ import annotations

import argparse

from datamodules.options import Options
from datamodules.readers.roles import read_map
from rate.envs.spec import EnvironmentSpec
from trainers.commands.console import count


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add options for properties that a data set does not specify."""
    group = parser.add_argument_group("what the data do not tell")
    group.add_argument(
        "--map",
        type=_pair,
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="which column is what: observations, actions, rewards, terminated, truncated, dones, "
        "is_first, is_last, episode, lengths or none; may be given several times, and several "
        "columns that are observations become a dictionary of them",
    )
    group.add_argument(
        "--time-limit",
        type=count,
        metavar="STEPS",
        help="after how many steps the environment of the data ends an episode, where no column "
        "tells it",
    )
    group.add_argument(
        "--unfinished",
        choices=("keep", "drop"),
        help="what becomes of steps after the last end (default: keep as a truncated episode; of "
        "D4RL's files: drop, as published)",
    )
    group.add_argument(
        "--zero-rewards", action="store_true", help="take data without rewards, as if all were 0"
    )
    group.add_argument(
        "--action-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="bounds of continuous actions (default: the environment's, or the data's own)",
    )
    group.add_argument(
        "--format",
        metavar="NAME",
        help="the format, where it is not to be recognised: a name as `rate convert` tells it, one "
        "that a package registers (rate.formats), or the import path of your own, module:FORMAT",
    )
    group.add_argument(
        "--keep-actions",
        action="store_true",
        help="keep actions that are outside of the bounds, instead of clipping them",
    )


def data_options(options: argparse.Namespace, spec: EnvironmentSpec | None) -> Options:
    """Returns the options of a data set from the command line."""
    low_high = options.action_range
    return Options(
        time_limit=options.time_limit,
        spec=spec,
        columns=tuple(options.map),
        action_range=None if low_high is None else (low_high[0], low_high[1]),
        keep_actions=options.keep_actions,
        zero_rewards=options.zero_rewards,
        unfinished=options.unfinished,
        format=options.format,
    )


def _pair(text: str) -> tuple[str, str]:
    try:
        return read_map(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
