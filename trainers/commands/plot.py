"""Draw scores, or learning curves; or print tables of scores.

rate plot data/results/tmaze.csv                 # against length -> data/results/tmaze.png
rate plot data/results/tmaze.csv --markdown      # the README's table; or --latex
rate plot data/results/tmaze.csv --statistic iqm # interquartile means and their intervals
rate plot data/results/tmaze.csv --relative-to dt  # bars; with --markdown Welch's tests as well
rate plot data/results/tmaze.csv --aggregate     # IQM, median and mean over tasks; also as a table
rate plot data/results/tmaze.csv --profile       # performance profiles; --ranks of the seeds
rate plot data/results/bits.csv --against bits   # models named MODEL-N against N
rate plot runs/tmaze-rate-1 runs/tmaze-dt-1      # learning curves -> learning.png
rate plot runs/tmaze-rate-* --statistic mean     # a band over the seeds of each run

Intervals are 95 % bootstrap intervals over training seeds (Agarwal et al. 2021). A task is an
environment at one length.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from trainers.commands.cells import SUMMARIES
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.outputs import check_picture
from trainers.commands.plot_learning import plot_learning
from trainers.commands.plot_lengths import plot_scores
from trainers.commands.plot_seeds import (
    Draw,
    plot_aggregates,
    plot_profile,
    plot_ranks,
    plot_relative,
)
from trainers.commands.scores import by_task_name, by_value, main_metric, read_scores
from trainers.commands.tables import (
    Table,
    aggregate_table,
    as_latex,
    as_markdown,
    comparison_tables,
    length_tables,
)

_LABELS = ("environment", "model", "which", "seed", "length", "episodes", "step")


def _check_metrics(metrics: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Check that the tables have the columns of `--metrics`.

    Raises:
        ConfigError: If a column is missing; the message lists the known ones.
    """
    known = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in _LABELS]
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"--metrics has {metric}; the tables have: {', '.join(known)}.")


def _tables(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> list[Table]:
    """Returns the tables that the options ask for.

    Raises:
        ConfigError: If they ask for a figure that has no table.
    """
    _check_metrics(options.metrics, rows)
    for name in ("profile", "ranks", "against"):
        if getattr(options, name):
            raise ConfigError(f"--{name} is a figure; there is no table of it.")
    if options.aggregate:
        return [aggregate_table(rows, _metric(rows, options), options.weights)]
    if options.relative_to:
        metric = _metric(rows, options)
        return comparison_tables(rows, metric, options.relative_to, options.weights)
    return length_tables(rows, options.metrics, options.statistic or "mean", options.weights)


def _metric(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """Returns the metric of a figure, or of a table of one metric.

    Raises:
        ConfigError: If several are named.
    """
    _check_metrics(options.metrics, rows)
    if len(options.metrics) > 1:
        raise ConfigError(
            f"--metrics names {len(options.metrics)} columns; only tables by length, without "
            "--aggregate and --relative-to, show more than one."
        )
    return next(iter(options.metrics), main_metric(rows))


def _draw(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Path:
    """Draw the figure that the options ask for; returns its path."""
    kinds: dict[str, Draw] = {
        "profile": plot_profile,
        "ranks": plot_ranks,
        "aggregate": plot_aggregates,
        "relative_to": partial(plot_relative, baseline=options.relative_to),
    }
    kind = next((name for name in kinds if getattr(options, name)), None)
    source, ending = options.sources[0], "" if kind is None else f"_{kind.removesuffix('_to')}"
    output: Path = options.output or source.with_name(f"{source.stem}{ending}.png")
    check_picture(output, ".png")
    metric = _metric(rows, options)
    if kind is not None:
        kinds[kind](rows, metric, output, options.weights)
        return output
    named = metric if options.metrics else None
    rows = by_value(rows) if options.against else rows
    line = (options.trained_length, options.statistic or "mean", options.against)
    plot_scores(rows, output, *line, named, options.weights)
    return output


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("plot", __doc__)
    parser.add_argument("sources", type=Path, nargs="+", help="tables of scores, or runs")
    parser.add_argument("-o", "--output", type=Path, help="the PNG to write")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--markdown", action="store_true", help="print a table instead")
    text.add_argument("--latex", action="store_true", help="print a table for LaTeX (booktabs)")
    parser.add_argument(
        "--metrics", nargs="+", default=[],
        help="columns of the table (default: success or return); of runs, of their metrics.csv"
        " (default: loss and last_step_accuracy)",
    )  # fmt: skip
    parser.add_argument(
        "--statistic", choices=SUMMARIES,
        help="of the seeds: mean (in tables with the standard deviation), or iqm, the interquartile"
        " mean, with its 95%% bootstrap interval (default: mean; of runs, a line for each)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("last", "best"), default="last",
        help="whose scores (default: last; best were chosen by evaluations in the environment)",
    )  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--profile", action="store_true", help="draw performance profiles")
    what.add_argument("--ranks", action="store_true", help="draw seeds from the best to the worst")
    what.add_argument(
        "--aggregate", action="store_true", help="interquartile mean, median and mean over tasks"
    )
    what.add_argument(
        "--relative-to", metavar="MODEL",
        help="differences from this model; in tables also the probability of improvement and"
        " Welch's test",
    )  # fmt: skip
    what.add_argument(
        "--against", metavar="NAME",
        help="draw the models named MODEL-N against N, the number of NAME (as a study names the"
        " runs of `vary`)",
    )  # fmt: skip
    parser.add_argument(
        "--tasks", action="store_true",
        help="models are named TASK-MODEL (as in studies of many tasks): each TASK is scored apart",
    )  # fmt: skip
    parser.add_argument(
        "--trained-length",
        type=count,
        help="longest episode of the training data, a dotted line (default: as in the runs)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    options = _parser().parse_args(arguments)
    with user_errors():
        if all(source.is_dir() for source in options.sources):
            if options.markdown or options.latex:
                name = "markdown" if options.markdown else "latex"
                raise ConfigError(f"--{name} is for tables of scores, not for runs.")
            output = options.output or Path("learning.png")
            check_picture(output, ".png")
            plot_learning(options.sources, output, options.metrics, options.statistic)
            print(output)
            return
        rows = [row for source in options.sources for row in read_scores(source)]
        rows = by_task_name(rows) if options.tasks else rows
        if options.markdown or options.latex:
            render = as_markdown if options.markdown else as_latex
            print(render(_tables(rows, options)))
        else:
            print(_draw(rows, options))


if __name__ == "__main__":
    main()
