"""Check a data set of any known format, and say what is wrong, in which file, episode and step.

    rate validate data/d4rl/hopper_medium-v2.hdf5
    rate validate data/hopper-medium
    rate validate data/memory_maze --imitable

It looks for files that are damaged or cut off, numbers that are not finite, lengths that disagree,
types, actions and observations outside of their spaces, ends in the midst of an episode, and in
stores for changed files and wrong returns-to-go. Exit code 1 says that something is wrong.

--imitable trains small students to predict the actions of held-out episodes, with and without
memory, and with the privileged state where the data have it: how much of the expert can be learnt
from what the agent sees, and how much of that needs memory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from datamodules.checks import Report, check
from datamodules.formats import open_source
from datamodules.source import Source
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.convert import ENVIRONMENT_HELP, environment_spec, progress
from trainers.commands.data_options import add_data_options, data_options

if TYPE_CHECKING:
    from trainers.imitable import Prediction

WRONG = 1  # exit code
UPDATES = 300  # of each student: seconds on a core for vectors, two minutes for images of 64x64


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("validate", __doc__)
    parser.add_argument("path", type=Path, metavar="PATH", help="file or folder to check")
    parser.add_argument("--environment", help=ENVIRONMENT_HELP)
    add_data_options(parser)
    parser.add_argument(
        "--most", type=count, default=20, metavar="N", help="problems to list (default: 20)"
    )
    parser.add_argument(
        "--imitable",
        action="store_true",
        help="measure how much of the expert can be learnt from what the agent sees",
    )
    parser.add_argument(
        "--imitable-steps",
        type=count,
        metavar="N",
        help=f"updates of each student, of about 2,000 steps (default: {UPDATES})",
    )
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if rest and options.environment is None:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.imitable_steps is not None and not options.imitable:
        parser.error("--imitable-steps goes with --imitable")
    with user_errors():
        spec = None if options.environment is None else environment_spec(options.environment, rest)
        described = data_options(options, spec)
        with progress() as tell:
            report = check(
                options.path, described, lambda done, total: tell("checking", done, total)
            )
        show(report, options.path, options.most)
        if report.problems:
            raise SystemExit(WRONG)
        if options.imitable:
            budget = options.imitable_steps or UPDATES
            show_imitable(open_source(options.path, described), report, budget)


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


def show_imitable(source: Source, report: Report, budget: int) -> None:
    """Measure and print how much of the expert of a data set can be learnt.

    Args:
        source: The data.
        report: The result of their check.
        budget: Updates of each student.
    """
    from trainers.imitable import imitable  # PyTorch, which a check alone does not need

    with progress() as tell:
        found = imitable(source, report.episodes, report.steps, budget, tell)
    first = next(iter(found.values()))
    what = "variance explained" if first.continuous else "accuracy"
    table = Table(title=f"Actions of {len(first.errors)} held-out episodes, by what is seen")
    table.add_column("seen")
    table.add_column(what, justify="right")
    for name, prediction in found.items():
        table.add_row(name, f"{prediction.score:.3f}")
    console = Console()
    console.print(table)
    console.print(meaning(found), highlight=False, soft_wrap=True, markup=False)


def meaning(found: dict[str, Prediction]) -> str:
    """Returns what the predictions of the students mean, in one sentence."""
    from trainers.imitable import HISTORY, INFORMED, PRESENT, REPEATED

    scores = {name: f"{prediction.score:.3f} from {name}" for name, prediction in found.items()}
    history, informed = found[HISTORY], found.get(INFORMED)
    plain = REPEATED if found[REPEATED].exceeds(found[PRESENT]) else PRESENT
    parts = [f"{scores[HISTORY]}, {scores[plain]}"]
    best = max(prediction.score for prediction in found.values())
    if found[plain].exceeds(history) or best <= 0:
        return (
            f"The student of the history has learnt too little ({parts[0]}): more --imitable-steps "
            "or more episodes are needed to tell."
        )
    use = "of use" if history.exceeds(found[plain]) else "of no use"
    parts[0] = f"memory is {use} ({parts[0]})"
    if informed is not None:
        what = "what the agent has seen tells as much as the privileged state"
        if informed.exceeds(history):
            what = "this expert acts on what the agent has not seen"
        told = f"{informed.score:.3f} with the privileged state"
        parts.insert(0, f"{what} ({told}, {scores[HISTORY]})")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    main()
