"""Check a data set of any known format, and say what is wrong, in which file, episode and step.

    rate validate data/d4rl/hopper_medium-v2.hdf5
    rate validate data/hopper-medium

It looks for files that are damaged or cut off, numbers that are not finite, lengths that disagree,
types, actions and observations outside of their spaces, ends in the midst of an episode, and in
stores for changed files and wrong returns-to-go. Exit code 1 says that something is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from datamodules.checks import Report, check
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.convert import ENVIRONMENT_HELP, environment_spec, progress
from trainers.commands.data_options import add_data_options, data_options

WRONG = 1  # exit code


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("validate", __doc__)
    parser.add_argument("path", type=Path, metavar="PATH", help="file or folder to check")
    parser.add_argument("--environment", help=ENVIRONMENT_HELP)
    add_data_options(parser)
    parser.add_argument(
        "--most", type=count, default=20, metavar="N", help="problems to list (default: 20)"
    )
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if rest and options.environment is None:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    with user_errors():
        spec = None if options.environment is None else environment_spec(options.environment, rest)
        with progress() as tell:
            report = check(
                options.path,
                data_options(options, spec),
                lambda done, total: tell("checking", done, total),
            )
    show(report, options.path, options.most)
    if report.problems:
        raise SystemExit(WRONG)


def show(report: Report, path: Path, most: int) -> None:
    """Print the report on a data set, with at most `most` problems and `most` warnings."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    for name, found in (("problem", report.problems), ("warning", report.warnings)):
        for text in found[:most]:
            say(f"{name}: {text}")
        if len(found) > most:
            say(f"... and {len(found) - most} more of these")
    if report.episodes:
        low, high = report.returns
        say(
            f"{path} ({report.format}): {report.episodes:,} valid episodes, {report.steps:,} "
            f"steps, returns from {low:g} to {high:g}"
        )
    problems = len(report.problems)
    say("No problems." if not problems else f"{problems} problem{'s' * (problems > 1)}.")


if __name__ == "__main__":
    main()
